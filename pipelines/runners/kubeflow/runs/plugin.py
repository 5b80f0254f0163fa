"""The MLflow run that KFP's plugin created for a run."""

from __future__ import annotations

from switchyard.pipelines.runners.kubeflow.cluster.run import Run
from switchyard.pipelines.runners.kubeflow.parent_run import Parent


def of_plugin(run: Run, uri: str | None = None) -> Parent | None:
    """Returns the MLflow run that KFP's plugin created on the tracking server `uri`; None when the plugin is off."""
    made = run.plugin
    return Parent(uri, made.experiment_id, made.run_id, made.url) if made else None
