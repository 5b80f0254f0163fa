"""Infra validation: a stage that blocks the promotion of models that cannot be served."""
