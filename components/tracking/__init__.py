"""MLflow: runs, the journal while it is unreachable, the registry."""
