"""A task's MLflow run, wherever it comes from.

* A runner on this machine made it (`kfp-local`, `kfp-docker`): nothing to do.
* KFP's MLflow plugin made it and ends it: it gets the stage's name, and the parent is found.
* A tracking server is known and no run: found by the KFP run's id, or made; ended here. A retry takes the run of its first try.

A task that does several stages has a run for each: those that the runner on this machine made, else made and ended here, beside
the one that KFP's plugin made for the task.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from switchyard.components.errors import DataGateError
from switchyard.components.failure import classify
from switchyard.components.process.at_termination import at_termination
from switchyard.components.tracking import run as tracking
from switchyard.pipelines.runners.kubeflow.contract import LAST, OF_STAGES, RECORD, RUN_ID
from switchyard.pipelines.runners.kubeflow.parent_run import find_or_make
from switchyard.pipelines.runners.kubeflow.task.cached_stages import STAGE_TAG, show_cached
from switchyard.pipelines.runners.tracking.record import NESTED_TAGS

_log = logging.getLogger(__name__)
_AMBIENT = {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", tracking.PARENT, tracking.STAGE, tracking.JOURNAL}
_OF_A_FAILURE = {"switchyard.status", "switchyard.error", "switchyard.why"}


@contextmanager
def mlflow_run_for_task(stage: str, made_in: Sequence[str] = (), *, joint: bool = False) -> Iterator[None]:
    """Has MLflow's current run set for what runs inside, and ends it. MLflow being away stops nothing.

    Args:
        stage: that runs.
        made_in: MLflow runs in which its inputs were made.
        joint: the task does others too.
    """
    if not joint:
        with _tracked(stage, made_in, joint=False):
            yield
        return
    before = dict(os.environ)
    os.environ.update(json.loads(os.environ.get(OF_STAGES) or "{}").get(stage, {}))
    try:
        with _tracked(stage, made_in, joint=True):
            yield
    finally:
        # The next stage has a run of its own.
        for key in {*before, *os.environ} & _AMBIENT:
            if key in before:
                os.environ[key] = before[key]
            else:
                del os.environ[key]


@contextmanager
def _tracked(stage: str, made_in: Sequence[str], *, joint: bool) -> Iterator[None]:
    run = _quietly(_attach, os.environ.get(tracking.STAGE, stage), joint)
    monitor = tracking.watch_system() if os.environ.get("MLFLOW_RUN_ID") else None
    try:
        with at_termination(partial(_quietly, _ended, run)):
            yield
    except BaseException as error:
        _quietly(_failed, run, error)
        raise
    else:
        _quietly(show_cached, os.environ.get(tracking.STAGE, stage), made_in)
        _quietly(_succeeded, run)
    finally:
        if monitor:
            monitor.finish()


class _OwnRun:
    """A nested run that this task ends; `parents`: it ends the parent too, where it is the last, as KFP's plugin does not."""

    def __init__(self, uri: str, run_id: str, parent: str, stage: str, *, parents: bool) -> None:
        self.uri, self.run_id, self.parent, self.stage, self.parents = uri, run_id, parent, stage, parents
        self.started = time.monotonic()


def _quietly(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # MLflow raises what its many stores raise
        _log.warning("MLflow: %s", error)
        return None


def _attach(stage: str, joint: bool) -> _OwnRun | None:
    uri, run_id = os.environ.get("MLFLOW_TRACKING_URI"), os.environ.get("MLFLOW_RUN_ID")
    os.environ.setdefault(tracking.STAGE, stage)
    if not uri or os.environ.get(tracking.JOURNAL):
        return None
    client = tracking.client(uri)
    if run_id and not joint:
        tags = {"mlflow.runName": stage, STAGE_TAG: stage}
        for key, value in tags.items():
            client.set_tag(run_id, key, value)
        parent = client.get_run(run_id).data.tags.get("mlflow.parentRunId")
        if parent:
            os.environ.setdefault(tracking.PARENT, parent)
        return None
    if run_id:
        os.environ[tracking.PARENT] = client.get_run(run_id).data.tags.get("mlflow.parentRunId") or run_id
    experiment, parent = _parent(client, uri)
    nested = _nested(client, experiment, parent, stage)
    os.environ.update({"MLFLOW_RUN_ID": nested, "MLFLOW_EXPERIMENT_ID": experiment, tracking.PARENT: parent})
    return _OwnRun(uri, nested, parent, stage, parents=not run_id)


def _parent(client: Any, uri: str) -> tuple[str, str]:
    """Returns experiment and parent run: the one that was named, the one of this KFP run, or a new one."""
    given = os.environ.get(tracking.PARENT)
    if given:
        run_id = given
    else:
        record: Mapping[str, Any] = json.loads(os.environ.get(RECORD) or "{}")
        parent = find_or_make(uri, os.environ.get(RUN_ID, ""), record)
        run_id = parent.run_id
        if record.get("texts") and not client.get_run(run_id).data.params:
            # A task that does not carry the whole record was faster.
            parent.describe(record)
    info = client.get_run(run_id).info
    if info.status != "RUNNING":
        # A retry of a run that had failed.
        _reopen(client, run_id)
    return str(info.experiment_id), run_id


def _reopen(client: Any, run_id: str) -> None:
    """Has a run that had failed be one that runs; what it failed by is no more."""
    client.update_run(run_id, status="RUNNING")
    for tag in set(client.get_run(run_id).data.tags) & _OF_A_FAILURE:
        client.delete_tag(run_id, tag)


def _nested(client: Any, experiment: str, parent: str, stage: str) -> str:
    where = f"tags.`mlflow.parentRunId` = '{parent}' AND tags.`{STAGE_TAG}` = '{stage}'"
    found = client.search_runs([experiment], where, max_results=1)
    if found:
        _reopen(client, found[0].info.run_id)
        return str(found[0].info.run_id)
    record: Mapping[str, Any] = json.loads(os.environ.get(RECORD) or "{}")
    kept = {k: v for k, v in record.get("tags", {}).items() if k in NESTED_TAGS}
    tags = {**kept, "mlflow.parentRunId": parent, STAGE_TAG: stage}
    return str(client.create_run(experiment, run_name=stage, tags=tags).info.run_id)


def _ended(run: _OwnRun | None, status: str = "FAILED", parent: str = "FAILED") -> None:
    """Says that the stage and the pipeline have ended: first of all, as little time may be left."""
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
    client.set_tag(run.parent, "switchyard.status", "stopped_by_data_gate" if gate else "failed")
    client.set_tag(run.parent, "switchyard.why", (message if gate else f"{run.stage}: {message}")[:5000])


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
    last = set(filter(None, os.environ.get(LAST, "").split(",")))
    if run.stage not in last:
        return False
    experiment = client.get_run(run.parent).info.experiment_id
    where = f"tags.`mlflow.parentRunId` = '{run.parent}' AND attributes.status = 'FINISHED'"
    done = {r.data.tags.get(STAGE_TAG) for r in client.search_runs([experiment], where)}
    return last <= done
