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

from switchyard.components.errors import (
    EXIT_BAD_INPUT,
    EXIT_DATA_GATE,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_NOT_BLESSED,
    DataGateError,
    UserError,
    first_line,
)
from switchyard.components.text.redaction import mask
from switchyard.components.tracking.context import RunContext
from switchyard.components.tracking.mlflow_errors import is_denial, is_refusal, refusal
from switchyard.pipelines.api.compile import compile_for_cluster
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.runners.kubeflow.cluster.client import Connection, KubeflowClient
from switchyard.pipelines.runners.kubeflow.cluster.run import Run
from switchyard.pipelines.runners.kubeflow.cluster.schedules import Schedule, Schedules, schedule_workflow, six_fields
from switchyard.pipelines.runners.kubeflow.cluster.workflow import StageState
from switchyard.pipelines.runners.kubeflow.compiler.compile import CompiledForKubeflow
from switchyard.pipelines.runners.kubeflow.parent_run import Parent, find_or_make, reconcile
from switchyard.pipelines.runners.kubeflow.runs.following import Following, follow
from switchyard.pipelines.runners.kubeflow.runs.plugin import of_plugin
from switchyard.pipelines.runners.tracking.record import RunRecord
from switchyard.pipelines.terminal.output import stderr_console
from switchyard.pipelines.terminal.progress import make_display


@dataclass(frozen=True)
class Submission:
    """What the command line says besides the pipeline. `catchup`, `most`: of a schedule, see `Schedule`."""

    connection: Connection
    experiment: str | None
    cron: str | None
    wait: bool
    as_json: bool
    following: Following
    catchup: bool = False
    most: int = 1


def submit(pipeline: Path, overrides: Sequence[str], workspace: Path | None, submission: Submission) -> int:
    """Submits a pipeline and returns the exit code.

    Raises:
        UserError: something is wrong with the pipeline or the server; nothing was started.
    """
    cron = six_fields(submission.cron) if submission.cron else None
    if cron and submission.wait:
        raise UserError("--wait follows one run, a schedule starts many: give one of the two.")
    client = KubeflowClient(submission.connection)
    client.check()
    compiled, config, record = compile_for_cluster(pipeline, overrides, workspace)
    experiment = client.experiment(submission.experiment or config.experiment)
    if cron:
        _schedule(client, compiled, config, experiment, cron, submission)
        return EXIT_DONE
    spec = {"pipeline_spec": compiled.spec, **({"platform_spec": compiled.platform} if compiled.platform else {})}
    settings: dict[str, Any] = {
        "parameters": {},
        "pipeline_root": config.kubeflow.pipeline_root,
        "service_account": config.kubeflow.service_account,
        "mlflow_experiment": config.experiment,
    }
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
    display = make_display(stderr_console())
    run, states = follow(client, run.run_id, compiled.tasks, compiled.waits, display, submission.following)
    return _ended(run, states, parent, found, submission)


def _schedule(
    client: KubeflowClient,
    compiled: CompiledForKubeflow,
    config: PipelineConfig,
    experiment: str,
    cron: str,
    submission: Submission,
) -> None:
    wanted = Schedule(
        name=f"{config.name} {submission.cron}",
        experiment_id=experiment,
        cron=cron,
        catchup=submission.catchup,
        most=submission.most,
        service_account=config.kubeflow.service_account,
        mlflow_experiment=config.experiment,
    )
    made = Schedules(client).make(compiled, config.kubeflow.pipeline_root, wanted)
    text = (
        f"recurring run {made.recurring_run_id}: {cron} (seconds first), in the time zone of KFP's controller: UTC, "
        f"unless its CRON_SCHEDULE_TIMEZONE says otherwise\n"
        f"Its runs are named {schedule_workflow(wanted.name)}-<number>-...; see switchyard runs schedules list"
    )
    _say({"recurring_run_id": made.recurring_run_id, "cron": cron, "name": wanted.name}, text, submission)


def _parent(run: Run, config: PipelineConfig, record: RunRecord) -> Parent | None:
    """Finds or makes the parent MLflow run; None when no server is known, or it is away: the first task does it then."""
    uri = config.tracking.uri if (config.tracking.uri or "").startswith("http") else None
    # Whose run KFP's plugin made may be known here by the variable alone.
    here = RunContext.current().tracking_uri
    parent = of_plugin(run, uri or (here if here.startswith("http") else None))
    try:
        if parent is None and uri:
            parent = find_or_make(uri, run.run_id, json.loads(record.to_json()))
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
    if is_refusal(error) or is_denial(error):
        click.echo(f"warning: {refusal(uri or '', error)}{more}", err=True)
        return
    click.echo(f"warning: MLflow at {mask(uri or '')} cannot be reached from here ({first_line(error)}){more}", err=True)


def _ended(
    run: Run, states: Mapping[str, StageState], parent: Parent | None, found: dict[str, Any], submission: Submission
) -> int:
    state = run.state
    tags: dict[str, str] = {}
    try:
        tags = reconcile(parent, state) if parent else {}
    except Exception as away:  # see _parent; the run is over, and is not lost with the server
        _warn_away(parent.uri if parent else None, away, "; whether the model was blessed is not known here")
    code = EXIT_DONE if state == "SUCCEEDED" else EXIT_FAILED
    status = state.lower()
    error = tags.get("switchyard.why", "") or run.error
    if state != "SUCCEEDED":
        failed = {stage: s for stage, s in states.items() if s.state == "FAILED"}
        codes = {s.exit_code for s in failed.values()}
        if tags.get("data_gate") == "failed" or EXIT_DATA_GATE in codes:
            code, status = EXIT_DATA_GATE, DataGateError.run_status
        elif EXIT_BAD_INPUT in codes:
            code = EXIT_BAD_INPUT
        if state == "CANCELED":
            error = "it was terminated"
        if failed and not error:
            why = "; ".join(f"{stage}: {s.message or 'failed'}" for stage, s in failed.items())
            error = f"{why}. See switchyard runs logs {run.run_id} {next(iter(failed))}"
    elif tags.get("blessed") == "false":
        code, status = EXIT_NOT_BLESSED, "not_blessed"
    elif tags.get("blessed") == "true":
        status = "blessed"
    found |= {"state": state, "status": status, "stages": {stage: s.state for stage, s in states.items()}, "error": error or None}
    lines = f"{status}" + (f": {error}" if error else "")
    _say(found, lines, submission)
    return code


def _say(found: Mapping[str, Any], lines: str, submission: Submission) -> None:
    click.echo(lines, file=sys.stderr if submission.as_json else sys.stdout)
    if submission.as_json:
        click.echo(json.dumps(found))
