"""Plain data of a run, parsed from KFP's v2beta1 API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from switchyard.pipelines.runners.kubeflow.cluster.workflow import StageState

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})


@dataclass(frozen=True)
class PluginRun:
    """The MLflow run created by KFP's plugin."""

    experiment_id: str
    run_id: str
    url: str


@dataclass(frozen=True)
class Run:
    """A KFP run.

    Attributes:
        run_id: id of the run.
        name: display name.
        state: PENDING, RUNNING, CANCELING, PAUSED or one of TERMINAL. A terminated run is CANCELED; KFP reports it as FAILED.
        end: identifies the end of the run; changes when a retried run ends again.
        error: reason of the failure; empty when KFP gives none.
        created: time of creation.
        schedule: id of the recurring run that started it; None when a user did.
        plugin: run of KFP's MLflow plugin; None when the plugin is off.
        pipeline: the pipeline spec; None for a run started by reference.
        version: ids of the pipeline and version it was started from; None for a run started from `pipeline`.
        shown: task -> its state, for tasks that v2beta1 shows as started: frozen once Argo compresses them, and without messages.
        begun: names of the tasks that have started.
    """

    run_id: str
    name: str
    state: str
    end: object
    error: str
    created: datetime | None
    schedule: str | None
    plugin: PluginRun | None
    pipeline: Mapping[str, Any] | None
    version: tuple[str, str] | None
    shown: Mapping[str, StageState] = field(default_factory=dict)
    begun: tuple[str, ...] = ()


def run_of(answer: Any) -> Run:
    """Parses the API's message. Raises ValueError when it has no run id."""
    if not answer.run_id:
        raise ValueError("a run without run_id")
    details = (answer.run_details.task_details if answer.run_details else None) or []
    reference = answer.pipeline_version_reference
    begun = [str(d.display_name).removesuffix("-driver") for d in details if str(d.display_name).endswith("-driver")]
    return Run(
        run_id=str(answer.run_id),
        name=str(answer.display_name),
        state=_state(answer),
        end=(answer.finished_at, len(answer.state_history or [])),
        error=str(answer.error.message or "") if answer.error else "",
        created=answer.created_at,
        schedule=answer.recurring_run_id or None,
        plugin=_plugin(answer),
        pipeline=_spec(answer.pipeline_spec),
        version=(reference.pipeline_id, reference.pipeline_version_id) if reference and reference.pipeline_version_id else None,
        shown=_shown(details),
        begun=tuple(n for n in dict.fromkeys(begun) if n != "root"),
    )


def _spec(given: Any) -> Mapping[str, Any] | None:
    """Returns the pipeline spec, which is nested one level deeper when there is a platform spec."""
    return dict(given.get("pipeline_spec") or given) if given else None


def _state(answer: Any) -> str:
    """Returns the state; CANCELED for a failed run whose history shows that it was terminated."""
    state = str(answer.state or "PENDING")
    history = [str(h.state) for h in answer.state_history or []]
    began = max((i for i, s in enumerate(history) if s == "RUNNING"), default=0)
    return "CANCELED" if state == "FAILED" and "CANCELING" in history[began:] else state


def _plugin(answer: Any) -> PluginRun | None:
    entries = getattr((answer.plugins_output or {}).get("mlflow"), "entries", None) or {}
    values = {key: entry.value for key, entry in entries.items()}
    if not values.get("root_run_id"):
        return None
    return PluginRun(str(values.get("experiment_id", "")), str(values["root_run_id"]), str(values.get("run_url", "")))


def _shown(details: Any) -> dict[str, StageState]:
    cached = {d.parent_task_id for d in details if str(d.state) == "SKIPPED" and d.parent_task_id}
    return {
        str(task.display_name): StageState(
            "SKIPPED" if task.task_id in cached else str(task.state), task.error.message if task.error else ""
        )
        for task in details
        if task.display_name and task.state
    }
