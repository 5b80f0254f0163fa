"""Builds the RunResult from a run's outputs, for every runner on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from switchyard.components.errors import (
    CANCELLED,
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_NOT_BLESSED,
    DataGateError,
    Failure,
    SwitchyardError,
)
from switchyard.components.evaluation.results import Evaluation
from switchyard.components.evaluation.servability import verdicts
from switchyard.components.failure import classify
from switchyard.components.text.markdown import plain
from switchyard.components.text.redaction import mask
from switchyard.components.tracking.model_registry import CHALLENGER, DEFERRED, REFUSED
from switchyard.pipelines.runners.contract import RunResult, StageResult
from switchyard.pipelines.runners.tracking.runs import RunTracker, left_behind
from switchyard.pipelines.terminal.progress import Display
from switchyard.pipelines.workspace import Workspace


def run_result(
    pipeline: str,
    trainer: str,
    tracker: RunTracker,
    order: Iterable[str],
    stages: Mapping[str, StageResult],
    outputs: Mapping[str, Mapping[str, str]],
    errors: Sequence[SwitchyardError],
    *,
    cancelled: bool = False,
) -> RunResult:
    """Returns the result of a run.

    Args:
        pipeline: name of the pipeline.
        trainer: names of all trainers.
        tracker: the run's tracker.
        order: all stages in topological order.
        stages: results of the stages that were started.
        outputs: stage -> output key -> URI.
        errors: the stages' errors; the first one determines the status.
        cancelled: the user cancelled the run.
    """
    evaluation = _evaluation(outputs)
    registration = _registration(outputs)
    error, code = None, EXIT_DONE
    status = "blessed"
    if cancelled:
        status, error, code = "cancelled", CANCELLED, EXIT_FAILED
    elif errors:
        first = errors[0]
        status, error, code = first.run_status, str(first), first.exit_code
    elif evaluation is None:
        status = "done"
    elif evaluation.blessed and registration.get("status") == REFUSED:
        status, code = "not_registered", EXIT_BAD_INPUT
        error = f"the model is blessed but not registered. {registration['why']} Its records are kept; see below."
    elif not evaluation.blessed:
        status, error, code = "not_blessed", "not blessed: " + "; ".join(evaluation.failures), EXIT_NOT_BLESSED
    elif registration.get("status") == CHALLENGER:
        # The champion was replaced during the run: the model was not compared with the new one and is not promoted.
        status, error, code = "not_blessed", f"not promoted: {registration['why']}", EXIT_NOT_BLESSED
    return RunResult(
        pipeline=pipeline,
        status=status,
        trainer=evaluation.best if evaluation else trainer,
        mlflow_run_id=tracker.run_id,
        mlflow_experiment_id=tracker.experiment_id,
        blessed=evaluation.blessed and status != "not_blessed" if evaluation else None,
        metrics=evaluation.metrics if evaluation else {},
        stages={s: stages[s] for s in order if s in stages},
        model_version=registration.get("version"),
        champion=registration.get("champion"),
        evaluation=evaluation,
        outputs=outputs,
        note=_note(registration),
        error=error,
        exit_code=code,
    )


def track_result(tracker: RunTracker, result: RunResult, display: Display, workspace: Workspace) -> None:
    """Ends the parent run with the result's status and warns about records that MLflow did not receive."""
    tags = {"switchyard.status": result.status, "blessed": str(result.blessed).lower()}
    if result.error:
        tags["switchyard.why"] = result.error
    if result.error and result.status == "failed":
        tags["mlflow.note.content"] = f"**Failed.** {plain(result.error)}"
    tracker.ended({"failed": "FAILED", "cancelled": "KILLED"}.get(result.status, "FINISHED"), tags)
    if tracker.offline:
        display.say("tracking", left_behind(workspace, tracker.refused))
    if tracker.lost:
        display.say("tracking", f"warning: {tracker.lost}")


def prefix_stage(stage: str, error: Exception) -> SwitchyardError:
    """Returns a stage's error prefixed with the stage's name; data gate errors are returned unchanged."""
    if isinstance(error, DataGateError):
        return error
    found = Failure(error.kind, str(error)) if isinstance(error, SwitchyardError) else classify(error, None)
    return Failure(found.kind, mask(f"{stage}: {found.message}")).error()


def _evaluation(outputs: Mapping[str, Mapping[str, str]]) -> Evaluation | None:
    if "evaluation" not in outputs:
        return None
    return verdicts(outputs["evaluation"]["evaluation"], outputs.get("infra_validation", {}).get("blessing"))


def _registration(outputs: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    if "registry" not in outputs:
        return {}
    path = Path(outputs["registry"]["registration"]) / "registration.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _note(registration: Mapping[str, Any]) -> str:
    if registration.get("status") == DEFERRED:
        return (
            "MLflow is unreachable: the model is not promoted. switchyard upload registers it later, as challenger if it "
            "was not compared with the current champion"
        )
    return ""
