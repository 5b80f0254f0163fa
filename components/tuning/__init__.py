"""The tuning stage: hyperparameters are searched for before a model is trained."""
