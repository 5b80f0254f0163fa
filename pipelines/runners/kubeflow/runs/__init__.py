"""Runs on a cluster: followed, reconciled with MLflow; what a cluster must have."""
