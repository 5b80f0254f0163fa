"""The tuning stage: searches hyperparameters before training."""
