"""Workspaces, bundles and compiled pipelines of earlier versions, which `tests/features/test_upgrades.py` opens."""
