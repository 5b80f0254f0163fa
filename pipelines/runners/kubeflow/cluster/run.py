"""A run as KFP's v2beta1 API shows it, made plain data of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from switchyard.pipelines.runners.kubeflow.cluster.workflow import StageState

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})


@dataclass(frozen=True)
class PluginRun:
    """The MLflow run that KFP's plugin made."""

    experiment_id: str
    run_id: str
    url: str


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        run_id: its id.
        name: for people.
        state: PENDING, RUNNING, CANCELING, PAUSED or one of TERMINAL. One that was terminated is CANCELED: KFP says FAILED.
        end: differs from one end to the next, of a run that was tried again.
        error: why it failed; empty where KFP gives no reason.
        created: when it was made.
        schedule: recurring run that started it; None: a person did.
        plugin: of KFP's MLflow plugin; None: it is turned off.
        pipeline: what it runs; None: it was started by reference.
        version: pipeline and version that it was started of; None: it was started of what `pipeline` is.
        shown: task -> its state, of those that v2beta1 shows as begun: frozen once Argo compresses them, and without messages.
        begun: names of the tasks that have begun.
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
    """Returns what the API's message says. Raises ValueError for what is no run."""
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
    """Returns the pipeline alone; with a platform it lies one level down."""
    return dict(given.get("pipeline_spec") or given) if given else None


def _state(answer: Any) -> str:
    """Only its history says that a run was terminated."""
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
