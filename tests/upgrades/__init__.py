"""Workspaces, bundles and compiled pipelines of earlier versions, which `tests/versions/test_upgrades.py` opens."""
