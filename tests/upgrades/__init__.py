"""Workspaces, bundles and compiled pipelines of earlier versions, which `tests/e2e/test_upgrades.py` opens."""
