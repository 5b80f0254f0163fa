"""Runs on a cluster: following them, reconciling them with MLflow, and checking the cluster's requirements."""
