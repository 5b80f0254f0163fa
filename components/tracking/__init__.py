"""MLflow: runs, the journal for when it is unreachable, the registry."""
