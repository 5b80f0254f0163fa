"""Finds or creates a task's MLflow run.

* Created by a runner on this machine (`kfp-local`, `kfp-docker`): used unchanged.
* Created and ended by KFP's MLflow plugin: renamed to the stage; its parent is looked up.
* Tracking server without a run: found by the KFP run's id or created, and ended here. A retry reuses the first attempt's run.

A task with several stages has one run per stage: created by the runner on this machine, else created and ended here, in addition
to the run that KFP's plugin created for the task.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from switchyard.components.errors import DataGateError
from switchyard.components.failure import classify
from switchyard.components.process.at_termination import at_termination
from switchyard.components.text.markdown import plain
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.runners.kubeflow.carried_files import unpacked
from switchyard.pipelines.runners.kubeflow.parent_run import find_or_make
from switchyard.pipelines.runners.kubeflow.task.cached_stages import STAGE_TAG, show_cached
from switchyard.pipelines.runners.tracking.record import NESTED_TAGS

_log = logging.getLogger(__name__)
_OF_A_FAILURE = {"switchyard.status", "switchyard.error", "switchyard.why"}


@contextmanager
def mlflow_run_for_task(stage: str, made_in: Sequence[str] = (), *, joint: bool = False) -> Iterator[None]:
    """Sets MLflow's current run for the enclosed code, then ends it. An unreachable MLflow does not fail the task.

    Args:
        stage: the current stage.
        made_in: ids of the MLflow runs that produced its inputs.
        joint: the task runs several stages.
    """
    context = RunContext.current().of_stage(stage)
    context = replace(context, stage=context.stage or stage)
    run, context = _quietly(_attach, context, joint) or (None, context)
    # The next stage has a separate context.
    with context.active(), _tracked(run, context, made_in):
        yield


@contextmanager
def _tracked(run: _OwnRun | None, context: RunContext, made_in: Sequence[str]) -> Iterator[None]:
    monitor = tracking.watch_system() if context.run_id else None
    try:
        with at_termination(partial(_quietly, _ended, run)):
            yield
    except BaseException as error:
        _quietly(_failed, run, error)
        raise
    else:
        _quietly(show_cached, context.stage, made_in)
        _quietly(_succeeded, run)
    finally:
        if monitor:
            monitor.finish()


class _OwnRun:
    """A nested run ended by this task. With `parents`, the last task also ends the parent, which no KFP plugin ends."""

    def __init__(self, uri: str, run_id: str, parent: str, context: RunContext, *, parents: bool) -> None:
        self.uri, self.run_id, self.parent, self.parents = uri, run_id, parent, parents
        self.stage, self.last = context.stage, set(filter(None, context.last_stages.split(",")))
        self.started = time.monotonic()


def _quietly(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # MLflow passes on the exceptions of its store backends
        _log.warning("MLflow: %s", error)
        return None


def _attach(context: RunContext, joint: bool) -> tuple[_OwnRun | None, RunContext]:
    """Returns the run that this task must end, if any, and the context with the stage's run."""
    uri, run_id, stage = context.tracking_uri, context.run_id, context.stage
    if not uri or context.journal:
        return None, context
    client = tracking.client(uri)
    if run_id and not joint:
        tags = {"mlflow.runName": stage, STAGE_TAG: stage}
        for key, value in tags.items():
            client.set_tag(run_id, key, value)
        parent = client.get_run(run_id).data.tags.get("mlflow.parentRunId")
        return None, replace(context, parent_run_id=context.parent_run_id or parent or "")
    if run_id:
        plugins = client.get_run(run_id).data.tags.get("mlflow.parentRunId") or run_id
        context = replace(context, parent_run_id=plugins)
    experiment, parent = _parent(client, context)
    nested = _nested(client, experiment, parent, context)
    own = _OwnRun(uri, nested, parent, context, parents=not run_id)
    return own, replace(context, run_id=nested, experiment_id=experiment, parent_run_id=parent)


def _parent(client: Any, context: RunContext) -> tuple[str, str]:
    """Returns the ids of experiment and parent run: the context's, the KFP run's, or a new one."""
    run_id = context.parent_run_id
    if not run_id:
        record = _record(context)
        parent = find_or_make(context.tracking_uri, context.kfp_run_id, record)
        run_id = parent.run_id
        if record.get("texts") and not client.get_run(run_id).data.params:
            # A task without the complete record created the run first.
            parent.describe(record)
    info = client.get_run(run_id).info
    if info.status != "RUNNING":
        # The KFP run failed before and is retried.
        _reopen(client, run_id)
    return str(info.experiment_id), run_id


def _reopen(client: Any, run_id: str) -> None:
    """Sets a failed run to RUNNING and deletes its failure tags."""
    client.update_run(run_id, status="RUNNING")
    for tag in set(client.get_run(run_id).data.tags) & _OF_A_FAILURE:
        client.delete_tag(run_id, tag)


def _nested(client: Any, experiment: str, parent: str, context: RunContext) -> str:
    stage = context.stage
    where = f"tags.`mlflow.parentRunId` = '{parent}' AND tags.`{STAGE_TAG}` = '{stage}'"
    found = client.search_runs([experiment], where, max_results=1)
    if found:
        _reopen(client, found[0].info.run_id)
        return str(found[0].info.run_id)
    record = _record(context)
    kept = {k: v for k, v in record.get("tags", {}).items() if k in NESTED_TAGS}
    tags = {**kept, "mlflow.parentRunId": parent, STAGE_TAG: stage}
    return str(client.create_run(experiment, run_name=stage, tags=tags).info.run_id)


def _record(context: RunContext) -> Mapping[str, Any]:
    """Returns the record of the parent run, which is compressed where it is complete."""
    record: Mapping[str, Any] = json.loads(unpacked(context.record) or "{}")
    return record


def _ended(run: _OwnRun | None, status: str = "FAILED", parent: str = "FAILED") -> None:
    """Ends the MLflow runs of the stage and the pipeline; called before other updates, as little time may be left."""
    if run is not None:
        client = tracking.client(run.uri)
        client.set_terminated(run.run_id, status)
        if run.parents:
            client.set_terminated(run.parent, parent)


def _failed(run: _OwnRun | None, error: BaseException) -> None:
    if run is None:
        return
    failure = classify(error, None)
    gate, message = failure.kind == DataGateError.kind, failure.message
    _ended(run, parent="FINISHED" if gate else "FAILED")
    client = tracking.client(run.uri)
    client.set_tag(run.run_id, "switchyard.status", "failed")
    client.set_tag(run.run_id, "switchyard.error", message[:5000])
    if not run.parents:
        return
    client.set_tag(run.parent, "switchyard.status", failure.run_status)
    why = (message if gate else f"{run.stage}: {message}")[:5000]
    client.set_tag(run.parent, "switchyard.why", why)
    if not gate:  # the gate describes the run itself
        client.set_tag(run.parent, "mlflow.note.content", f"**Failed.** {plain(why)}")


def _succeeded(run: _OwnRun | None) -> None:
    if run is None:
        return
    client = tracking.client(run.uri)
    client.set_tag(run.run_id, "switchyard.status", "ran")
    client.log_metric(run.run_id, "seconds", time.monotonic() - run.started)
    client.set_terminated(run.run_id, "FINISHED")
    if run.parents and _all_done(client, run):
        client.set_terminated(run.parent, "FINISHED")


def _all_done(client: Any, run: _OwnRun) -> bool:
    if run.stage not in run.last:
        return False
    experiment = client.get_run(run.parent).info.experiment_id
    where = f"tags.`mlflow.parentRunId` = '{run.parent}' AND attributes.status = 'FINISHED'"
    done = {r.data.tags.get(STAGE_TAG) for r in client.search_runs([experiment], where)}
    return run.last <= done
