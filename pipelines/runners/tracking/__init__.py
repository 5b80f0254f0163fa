"""A run's record in MLflow, whichever runner it has."""
