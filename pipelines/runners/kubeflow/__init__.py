"""Kubeflow Pipelines v2: compiles any TFX pipeline, runs it on a cluster or on this machine, and follows runs.

`compiler.compile` and `task.runtime` do not depend on Switchyard's own stages.
"""
