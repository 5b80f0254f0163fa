"""A run's record in MLflow, for every runner."""
