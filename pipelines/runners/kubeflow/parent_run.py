"""The parent MLflow run of a Kubeflow run, created once: by KFP's MLflow plugin, by `submit`, or by the first task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from switchyard.components.errors import KINDS
from switchyard.components.tracking import run as tracking
from switchyard.pipelines.runners.tracking.run_name import run_name

KFP_TAG = "switchyard.kfp_run_id"
_ENDS = {"SUCCEEDED": "FINISHED", "FAILED": "FAILED", "CANCELED": "KILLED", "SKIPPED": "FINISHED"}


@dataclass(frozen=True)
class Parent:
    """A parent run.

    Attributes:
        uri: the tracking server; None when it is not known on this machine.
        experiment_id: id of its experiment.
        run_id: id of the run.
        url: address of its page.
    """

    uri: str | None
    experiment_id: str
    run_id: str
    url: str

    def describe(self, record: Mapping[str, Any]) -> None:
        """Logs the record to a run created by KFP's plugin, or by a task with a short record, and names the run by it."""
        run = tracking.Run(self.uri, self.run_id)
        if self.uri:
            name = run_name(self.uri, self.experiment_id, record, own=self.run_id)
            tracking.client(self.uri).update_run(self.run_id, name=name)
        run.tags(record["tags"])
        run.params(record["params"])
        for name, text in record["texts"].items():
            run.text(text, name)


def find_or_make(uri: str, kfp_run: str, record: Mapping[str, Any]) -> Parent:
    """Returns the parent of a KFP run, created if missing. Concurrent callers get the same run.

    Args:
        uri: tracking server.
        kfp_run: id of the KFP run.
        record: a `RunRecord` as a mapping.
    """
    client = tracking.client(uri)
    experiment = tracking.ensure_experiment(uri, record.get("experiment") or "Default", None)
    found = _find(client, experiment, kfp_run)
    if found is None:
        tags = record.get("tags", {})
        name = run_name(uri, experiment, record) if record.get("params") else record.get("name") or "pipeline"
        mine = tracking.create_run(uri, experiment, name, {**tags, KFP_TAG: kfp_run})
        found = _find(client, experiment, kfp_run) or mine
        if found != mine:
            client.delete_run(mine)
        else:
            run = tracking.Run(uri, mine)
            run.params(record.get("params", {}))
            for name, text in record.get("texts", {}).items():
                run.text(text, name)
    return Parent(uri, experiment, found, f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{found}")


def _find(client: Any, experiment: str, kfp_run: str) -> str | None:
    if not kfp_run:
        return None
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    found = client.search_runs([experiment], f"tags.`{KFP_TAG}` = '{kfp_run}'", order_by=order, max_results=1)
    return str(found[0].info.run_id) if found else None


def reconcile(parent: Parent, state: str) -> dict[str, str]:
    """Sets the MLflow status of an ended KFP run to KFP's state, if no task could do so; returns the parent's tags.

    Args:
        parent: the parent run. KFP's plugin ends the runs it created with the same status.
        state: state of the KFP run.
    """
    if parent.uri is None:
        return {}
    client = tracking.client(parent.uri)
    if state in _ENDS:
        status = client.get_run(parent.run_id).info.status
        if status == "RUNNING" or (state == "SUCCEEDED" and status != "FINISHED"):
            client.set_terminated(parent.run_id, _ENDS[state])
        # A pod that ran out of memory or lost its node could not end its run.
        tracking.end_nested(parent.uri, parent.experiment_id, parent.run_id)
        if state == "SUCCEEDED":
            _forget_failures(client, parent)
    return dict(client.get_run(parent.run_id).data.tags)


def _forget_failures(client: Any, parent: Parent) -> None:
    """Deletes the failure tags of earlier attempts: the run and therefore every stage has succeeded."""
    tags = client.get_run(parent.run_id).data.tags
    status = tags.get("switchyard.status")
    stale = {"switchyard.status"} if status in {error.run_status for error in KINDS.values()} else set()
    for tag in (stale | ({"switchyard.why"} if status != "not_blessed" else set())) & set(tags):
        client.delete_tag(parent.run_id, tag)
    where = f"tags.`mlflow.parentRunId` = '{parent.run_id}' AND tags.`switchyard.error` LIKE '%'"
    for run in client.search_runs([parent.experiment_id], where):
        client.delete_tag(run.info.run_id, "switchyard.error")
        client.set_tag(run.info.run_id, "switchyard.status", "ran")
        client.set_terminated(run.info.run_id, "FINISHED")
