"""`switchyard submit`: a pipeline to a Kubeflow cluster, once or by a schedule; followed to its end if wanted."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from components import tracking
from components.errors import EXIT_DATA_GATE, EXIT_DONE, EXIT_FAILED, EXIT_NOT_BLESSED, UserError, first_line
from components.redaction import mask
from pipelines.compile_command import compile_for_cluster
from pipelines.config import PipelineConfig
from pipelines.runners.kubeflow.client import TERMINAL, Connection, KubeflowClient, task_states
from pipelines.runners.kubeflow.compiler import CompiledForKubeflow
from pipelines.runners.kubeflow.parent_run import Parent, find_or_make, of_plugin, reconcile
from pipelines.runners.progress_display import make_display
from pipelines.runners.quiet import screen
from pipelines.runners.run_record import RunRecord

_POLL_SECONDS = 5.0
_SHOWN = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "ran",
    "SKIPPED": "cached",
    "FAILED": "failed",
    "CANCELED": "cancelled",
    "CANCELING": "running",
    "PAUSED": "waiting",
}


@dataclass(frozen=True)
class Submission:
    """What the command line says besides the pipeline."""

    connection: Connection
    experiment: str | None
    cron: str | None
    wait: bool
    as_json: bool
    poll: float = _POLL_SECONDS


def submit(pipeline: Path, overrides: Sequence[str], workspace: Path | None, submission: Submission) -> int:
    """Submits a pipeline and returns the exit code.

    Raises:
        UserError: something is wrong with the pipeline or the server; nothing was started.
    """
    cron = _six_fields(submission.cron) if submission.cron else None
    if cron and submission.wait:
        raise UserError("--wait follows one run, a schedule starts many: give one of the two.")
    client = KubeflowClient(submission.connection)
    client.check()
    compiled, config, record = compile_for_cluster(pipeline, overrides, workspace)
    experiment = client.experiment(submission.experiment or config.experiment)
    spec = {"pipeline_spec": compiled.spec, **({"platform_spec": compiled.platform} if compiled.platform else {})}
    settings: dict[str, Any] = {
        "parameters": {},
        "pipeline_root": config.kubeflow.pipeline_root,
        "service_account": config.kubeflow.service_account,
        "mlflow_experiment": config.experiment,
    }
    if cron:
        made = client.schedule(f"{config.name} {submission.cron}", experiment, spec, cron, **settings)
        _say({"recurring_run_id": made.recurring_run_id}, f"recurring run {made.recurring_run_id}: {cron}", submission)
        return EXIT_DONE
    run = client.submit(f"{config.name} {time.strftime('%Y-%m-%d %H:%M:%S')}", experiment, spec, **settings)
    parent = _parent(run, config, record)
    links = [f"run {run.run_id}: {client.url(run.run_id)}"]
    if parent:
        links.append(f"MLflow run {parent.run_id}: {parent.url}")
    found = {
        "run_id": run.run_id,
        "url": client.url(run.run_id),
        "mlflow_run_id": parent.run_id if parent else None,
        "mlflow_url": parent.url if parent else None,
    }
    if not submission.wait:
        _say(found, "\n".join(links), submission)
        return EXIT_DONE
    click.echo("\n".join(links), err=True)
    run, states = follow(client, run.run_id, compiled, submission.poll)
    return _ended(run, states, parent, found, submission)


def follow(client: KubeflowClient, run_id: str, compiled: CompiledForKubeflow, poll: float) -> tuple[Any, dict[str, str]]:
    """Shows a run's stages until it ends; returns the run and stage -> state. A server away for a while stops nothing."""
    display = make_display(screen())
    shown: dict[str, str] = {}
    since: dict[str, float] = {}
    patience = 10
    with display:
        display.stages(compiled.waits)
        while True:
            try:
                run = client.run(run_id)
                patience = 10
            except UserError as error:
                patience -= 1
                if not patience:
                    raise UserError(f"{error} The run goes on; look at it later with switchyard runs show {run_id}.") from None
                display.say("submit", f"warning: {error} Trying again.")
                time.sleep(poll)
                continue
            for stage, (state, said) in task_states(run, compiled.tasks).items():
                if shown.get(stage) != state:
                    shown[stage] = state
                    since.setdefault(stage, time.monotonic())
                    done = state in TERMINAL
                    display.status(stage, _SHOWN.get(state, "running"), time.monotonic() - since[stage] if done else None)
                    if said:
                        display.say(stage, f"warning: {said}")
            if str(run.state) in TERMINAL:
                return run, shown
            time.sleep(poll)


def _parent(run: Any, config: PipelineConfig, record: RunRecord) -> Parent | None:
    """Finds or makes the parent MLflow run; None when no server is known, or it is away: the first task does it then."""
    uri = config.tracking.uri if (config.tracking.uri or "").startswith("http") else None
    parent = of_plugin(run, uri)
    try:
        if parent is None and uri:
            parent = find_or_make(uri, str(run.run_id), json.loads(record.to_json()))
        elif parent and uri:
            parent.describe(json.loads(record.to_json()))
    except Exception as error:  # MLflow raises what its many stores raise
        _warn_away(uri, error)
    if parent is None and not uri:
        click.echo(
            "warning: no MLflow tracks this run: KFP's MLflow plugin is off, and tracking.uri names no server (http://...)",
            err=True,
        )
    return parent


def _warn_away(uri: str | None, error: Exception, more: str = "") -> None:
    if tracking.is_refusal(error) or tracking.is_denial(error):
        click.echo(f"warning: {tracking.refusal(uri or '', error)}{more}", err=True)
        return
    click.echo(f"warning: MLflow at {mask(uri or '')} cannot be reached from here ({first_line(error)}){more}", err=True)


def _ended(run: Any, states: Mapping[str, str], parent: Parent | None, found: dict[str, Any], submission: Submission) -> int:
    state = str(run.state)
    tags: dict[str, str] = {}
    try:
        tags = reconcile(parent, state) if parent else {}
    except Exception as away:  # see _parent; the run is over, and is not lost with the server
        _warn_away(parent.uri if parent else None, away, "; whether the model was blessed is not known here")
    code = EXIT_DONE if state == "SUCCEEDED" else EXIT_FAILED
    status = state.lower()
    error = tags.get("switchyard.why", "") or (run.error.message if run.error else "")
    if state != "SUCCEEDED":
        failed = [stage for stage, s in states.items() if s == "FAILED"]
        if tags.get("data_gate") == "failed":
            code, status = EXIT_DATA_GATE, "stopped_by_data_gate"
        if failed and not error:
            error = f"{', '.join(failed)} failed; see switchyard runs logs {run.run_id} {failed[0]}"
    elif tags.get("blessed") == "false":
        code, status = EXIT_NOT_BLESSED, "not_blessed"
    elif tags.get("blessed") == "true":
        status = "blessed"
    found |= {"state": state, "status": status, "stages": dict(states), "error": error or None}
    lines = f"{status}" + (f": {error}" if error else "")
    _say(found, lines, submission)
    return code


def _say(found: Mapping[str, Any], lines: str, submission: Submission) -> None:
    click.echo(lines, file=sys.stderr if submission.as_json else sys.stdout)
    if submission.as_json:
        click.echo(json.dumps(found))


def _six_fields(cron: str) -> str:
    """KFP's cron begins with seconds; people write five fields."""
    fields = cron.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise UserError(
            f'--schedule {cron!r}: must be a cron expression of five fields (minute hour day month weekday), e.g. "0 3 * * *"'
        )
    return " ".join(fields)
