"""Compiles pipelines for Kubeflow Pipelines."""
