"""Kubeflow Pipelines v2: any TFX pipeline compiled to it, run on a cluster or on this machine, and followed.

`compiler` and `runtime` know nothing of Switchyard's own stages.
"""
