"""MLflow runs of stages that KFP took from its cache. No task ran to create them, so the run's last task does.

Such a run links to the run that produced the outputs and has a copy of its training curves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.runners.contract import PRODUCER_RUN_ID
from switchyard.pipelines.runners.tracking.record import NESTED_TAGS

STAGE_TAG = "switchyard.stage"
_BATCH = 1000


def producer_run_id(given: Iterable[Any]) -> list[str]:
    """Returns the ids of the MLflow runs that produced a task's input artifacts, without duplicates.

    Args:
        given: the arguments of the generated function, before it writes its outputs.
    """
    found = [getattr(argument, "metadata", {}).get(PRODUCER_RUN_ID) for argument in given]
    return [str(run_id) for run_id in dict.fromkeys(found) if run_id]


def show_cached(stage: str, makers: Iterable[str]) -> None:
    """Adds a nested run to the pipeline's MLflow run for each of `makers` that belongs to another pipeline run.

    Args:
        stage: the current stage. Only stages without downstream stages do this, so that it is done once.
        makers: ids of producer runs, see `producer_run_id`.
    """
    context = RunContext.current()
    uri, parent = context.tracking_uri, context.parent_run_id
    if not uri or not parent or context.journal or stage not in context.last_stages.split(","):
        return
    client = tracking.client(uri)
    experiment = client.get_run(parent).info.experiment_id
    nested = {_stage(r): r for r in client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")}
    for run_id in makers:
        made = client.get_run(run_id)
        if made.data.tags.get("mlflow.parentRunId") == parent:
            continue
        name = _stage(made)
        # KFP's plugin has created an empty run for the task.
        shown = nested.get(name) or nested.get(name.replace("_", "-"))
        if shown is not None and shown.data.tags.get(STAGE_TAG) and "switchyard.cached_from_run" not in shown.data.tags:
            continue  # the stage ran here; only another of its artifacts is from the cache
        _show(client, uri, made, shown, experiment, parent, name)


def _show(client: Any, uri: str, made: Any, shown: Any, experiment: str, parent: str, name: str) -> None:
    run_id = made.info.run_id
    link = f"#/experiments/{made.info.experiment_id}/runs/{run_id}"
    tags = {
        **{k: v for k, v in made.data.tags.items() if k in NESTED_TAGS},
        "mlflow.parentRunId": parent,
        "mlflow.runName": name,
        STAGE_TAG: name,
        "switchyard.status": "cached",
        "switchyard.cached_from_run": run_id,
        "mlflow.note.content": f"Cached: the work was done in run [{run_id}]({link}).",
    }
    if shown is None:
        target = tracking.create_run(uri, experiment, name, tags)
        # A retry of this task finds the run and adds no points: MLflow identifies them by step and time.
    else:
        target = shown.info.run_id
        tracking.Run(uri, target).tags(tags)
    if shown is None or not shown.data.metrics:
        _copy_curves(client, made, target)
    client.set_terminated(target, "FINISHED")


def _copy_curves(client: Any, made: Any, target: str) -> None:
    """Copies the metrics logged by step, except the system metrics, which describe the other run's machine."""
    points: list[Any] = []
    for key in made.data.metrics:
        if not key.startswith("system/"):
            history = client.get_metric_history(made.info.run_id, key)
            points += history if any(p.step for p in history) else []
    for start in range(0, len(points), _BATCH):
        client.log_batch(target, metrics=points[start : start + _BATCH])


def _stage(run: Any) -> str:
    return str(run.data.tags.get(STAGE_TAG) or run.info.run_name)
