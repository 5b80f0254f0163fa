"""Compiles a pipeline for Kubeflow Pipelines."""
