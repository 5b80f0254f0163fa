"""Submits a pipeline to a Kubeflow cluster, once or on a schedule, and optionally follows the run to its end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from switchyard.components.errors import (
    EXIT_BAD_INPUT,
    EXIT_DATA_GATE,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_NOT_BLESSED,
    ArgumentError,
    DataGateError,
    Failure,
    first_line,
)
from switchyard.components.text.redaction import mask
from switchyard.components.tracking.context import RunContext
from switchyard.components.tracking.mlflow_errors import is_denial, is_refusal, refusal
from switchyard.pipelines.api.compile import compile_for_cluster
from switchyard.pipelines.api.number_argument import Range, number
from switchyard.pipelines.api.pipeline_argument import load
from switchyard.pipelines.config.pipeline import PipelineConfig, TrackingConfig
from switchyard.pipelines.runners.kubeflow.cluster.client import Connection, KubeflowClient
from switchyard.pipelines.runners.kubeflow.cluster.run import Run
from switchyard.pipelines.runners.kubeflow.cluster.schedules import Schedule, Schedules, six_fields
from switchyard.pipelines.runners.kubeflow.cluster.workflow import StageState
from switchyard.pipelines.runners.kubeflow.compiler.compile import CompiledForKubeflow
from switchyard.pipelines.runners.kubeflow.parent_run import Parent, find_or_make, reconcile
from switchyard.pipelines.runners.kubeflow.runs.following import Following, follow
from switchyard.pipelines.runners.kubeflow.runs.plugin import of_plugin
from switchyard.pipelines.runners.tracking.record import RunRecord
from switchyard.pipelines.terminal.output import progress_console
from switchyard.pipelines.terminal.progress import make_display

HOST = "SWITCHYARD_KFP_HOST"


@dataclass(frozen=True)
class SubmittedRun:
    """A run on Kubeflow Pipelines in its state when `submit` returned; with `wait`, its final state.

    Attributes:
        run_id: run id in KFP.
        url: URL of the run in KFP.
        mlflow_run_id: id of the parent run in MLflow; None if unknown on this machine.
        mlflow_url: URL of the parent run in MLflow.
        state: state in KFP: `SUCCEEDED`, `FAILED`, `CANCELED`; None without `wait`.
        status: `blessed`, `not_blessed`, `stopped_by_data_gate`, or the state in lower case; None without `wait`.
        stages: stage -> state in KFP; `NOT_RUN` for a stage that never started.
        error: error message; None without a known error.
        exit_code: exit code of the command.
    """

    run_id: str
    url: str
    mlflow_run_id: str | None
    mlflow_url: str | None
    state: str | None = None
    status: str | None = None
    stages: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    exit_code: int = EXIT_DONE


@dataclass(frozen=True)
class SubmittedSchedule:
    """A recurring run on Kubeflow Pipelines.

    Attributes:
        recurring_run_id: recurring run id in KFP.
        name: name of the recurring run.
        cron: schedule of the runs: six fields, seconds first, in the time zone of KFP's controller.
    """

    recurring_run_id: str
    name: str
    cron: str


def submit(
    pipeline: str | os.PathLike[str] | Mapping[str, Any] | PipelineConfig,
    *,
    host: str | None = None,
    namespace: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca_cert: str | os.PathLike[str] | None = None,
    insecure: bool = False,
    timeout: float = 30.0,
    experiment: str | None = None,
    wait: bool = False,
    heal: int | None = None,
    stuck: float | None = None,
    poll: float = 5.0,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    trainer: str | Sequence[str] | None = None,
    workspace: str | os.PathLike[str] | None = None,
    check: bool = True,
    progress: bool = False,
) -> SubmittedRun:
    """Runs a pipeline on Kubeflow Pipelines.

    Args:
        pipeline: path of its YAML, its content as a mapping, or what `load_config` returned.
        host: URL of Kubeflow Pipelines; default: SWITCHYARD_KFP_HOST.
        namespace: the user's namespace, on a multi-user Kubeflow.
        token_file: file with a bearer token; default: SWITCHYARD_KFP_TOKEN, then the pod's own.
        ca_cert: file with the server's certificate authority.
        insecure: do not check the server's certificate.
        timeout: timeout of a request, in seconds.
        experiment: experiment in KFP and MLflow; default: the pipeline's.
        wait: follow the run to its end.
        heal: with `wait`: retries of a run whose pods were evicted or deleted; default: 2.
        stuck: with `wait`: fail if a pod cannot start for this many seconds; default: 600.
        poll: with `wait`: seconds between polls.
        overrides: key -> value, or texts `KEY=VALUE`, see `run`.
        trainer: sets `trainer.framework`, see `run`.
        workspace: folder for the log and snapshots of the user's code; default: `.switchyard` beside the YAML.
        check: with `wait`: raise the error of a failed run, see `run`; otherwise the result contains it.
        progress: show progress on standard error. Without it, warnings are Python's (`UserWarning`).

    Returns:
        The run in its initial state, or with `wait` in its final state.

    Raises:
        UserError: the pipeline, an argument or the server is invalid; nothing was started.
        DataGateError: the data gate stopped the run (with `wait`).
        StageError: the run failed (with `wait`), or a pod cannot start.
    """
    if not wait and (heal is not None or stuck is not None):
        raise ArgumentError(
            "stuck" if heal is None else "heal", "takes effect only with wait, which follows the run; add wait, or remove this."
        )
    following = Following(
        poll=number("poll", poll, Range(0.1)),
        heal=2 if heal is None else number("heal", heal, Range(0, 100, whole=True)),
        stuck=600.0 if stuck is None else number("stuck", stuck, Range(1)),
    )
    client = _client(host, namespace, token_file, ca_cert, insecure, timeout)
    given, source, place = load(pipeline, overrides, trainer, workspace)
    given = _in_experiment(given, experiment)
    compiled, config, record = compile_for_cluster(given, source, place, progress=progress, upload=True, once=True)
    where = client.experiment(config.experiment)
    with progress_console(progress) as console:
        submitted = _start(client, compiled, config, record, where, partial(make_display(console).say, "MLflow"))
        if not wait:
            return submitted[0]
        result = _followed(client, compiled, submitted, following, console)
    if check and result.exit_code not in (EXIT_DONE, EXIT_NOT_BLESSED):
        raise Failure.of_exit_code(result.exit_code, result.error or str(result.status)).error()
    return result


def schedule(
    pipeline: str | os.PathLike[str] | Mapping[str, Any] | PipelineConfig,
    cron: str,
    *,
    host: str | None = None,
    namespace: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca_cert: str | os.PathLike[str] | None = None,
    insecure: bool = False,
    timeout: float = 30.0,
    experiment: str | None = None,
    catchup: bool = False,
    max_concurrency: int = 1,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    trainer: str | Sequence[str] | None = None,
    workspace: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> SubmittedSchedule:
    """Creates a recurring run of a pipeline on Kubeflow Pipelines.

    Args:
        pipeline: see `submit`.
        cron: schedule in five or six fields (seconds first), in the time zone of KFP's controller (UTC by default).
        host: see `submit`.
        namespace: see `submit`.
        token_file: see `submit`.
        ca_cert: see `submit`.
        insecure: see `submit`.
        timeout: see `submit`.
        experiment: see `submit`.
        catchup: run missed runs later.
        max_concurrency: concurrent runs, 1 to 10.
        overrides: see `run`.
        trainer: see `run`.
        workspace: see `submit`.
        progress: see `submit`.

    Raises:
        UserError: the pipeline, an argument or the server is invalid; nothing was created.
    """
    fields = six_fields(cron)
    max_concurrency = number("max_concurrency", max_concurrency, Range(1, 10, whole=True))
    client = _client(host, namespace, token_file, ca_cert, insecure, timeout)
    given, source, place = load(pipeline, overrides, trainer, workspace)
    given = _in_experiment(given, experiment)
    compiled, config, _ = compile_for_cluster(given, source, place, progress=progress, upload=True)
    wanted = Schedule(
        name=f"{config.name} {cron}",
        experiment_id=client.experiment(config.experiment),
        cron=fields,
        catchup=catchup,
        most=max_concurrency,
        service_account=config.kubeflow.service_account,
        mlflow_experiment=config.experiment,
    )
    made = Schedules(client).make(compiled, config.kubeflow.pipeline_root, wanted)
    return SubmittedSchedule(made.recurring_run_id, wanted.name, fields)


def _in_experiment(config: PipelineConfig, experiment: str | None) -> PipelineConfig:
    if not experiment:
        return config
    try:
        tracking = TrackingConfig.model_validate({**config.tracking.model_dump(by_alias=True), "experiment": experiment})
    except ValidationError as error:
        raise ArgumentError("experiment", f"{error.errors()[0]['msg'].removeprefix('Value error, ')}.") from None
    return config.model_copy(update={"tracking": tracking})


def _client(
    host: str | None,
    namespace: str | None,
    token_file: str | os.PathLike[str] | None,
    ca_cert: str | os.PathLike[str] | None,
    insecure: bool,
    timeout: float,
) -> KubeflowClient:
    address = host or os.environ.get(HOST)
    if not address:
        raise ArgumentError("host", f"is missing; give the URL of Kubeflow Pipelines, or set {HOST}.")
    timeout = number("timeout", timeout, Range(1))
    token = Path(token_file) if token_file is not None else None
    authority = Path(ca_cert) if ca_cert is not None else None
    client = KubeflowClient(Connection(address, namespace, token, authority, insecure, timeout))
    client.check()
    return client


def _start(
    client: KubeflowClient,
    compiled: CompiledForKubeflow,
    config: PipelineConfig,
    record: RunRecord,
    experiment: str,
    say: Callable[[str], None],
) -> tuple[SubmittedRun, Parent | None]:
    spec = {"pipeline_spec": compiled.spec, **({"platform_spec": compiled.platform} if compiled.platform else {})}
    settings: dict[str, Any] = {
        "parameters": {},
        "pipeline_root": config.kubeflow.pipeline_root,
        "service_account": config.kubeflow.service_account,
        "mlflow_experiment": config.experiment,
    }
    run = client.submit(f"{config.name} {time.strftime('%Y-%m-%d %H:%M:%S')}", experiment, spec, **settings)
    parent = _parent(run, config, record, say)
    mlflow = (parent.run_id, parent.url) if parent else (None, None)
    return SubmittedRun(run.run_id, client.url(run.run_id), *mlflow), parent


def links(run: SubmittedRun) -> str:
    """Returns the lines with a run's links."""
    lines = [f"run {run.run_id}: {run.url}"]
    if run.mlflow_run_id:
        lines.append(f"MLflow run {run.mlflow_run_id}: {run.mlflow_url}")
    return "\n".join(lines)


def _followed(
    client: KubeflowClient,
    compiled: CompiledForKubeflow,
    submitted: tuple[SubmittedRun, Parent | None],
    following: Following,
    console: Console,
) -> SubmittedRun:
    run, parent = submitted
    console.print(links(run), markup=False, highlight=False, soft_wrap=True)
    display = make_display(console)
    ended, states = follow(client, run.run_id, compiled.tasks, compiled.waits, display, following)
    return _ended(run, ended, states, parent, partial(display.say, "MLflow"))


def _parent(run: Run, config: PipelineConfig, record: RunRecord, say: Callable[[str], None]) -> Parent | None:
    """Finds or creates the parent MLflow run; None if no server is known or it is unreachable: the first task creates it then."""
    uri = config.tracking.uri if (config.tracking.uri or "").startswith("http") else None
    # The server of a run created by KFP's plugin may be known only by the environment variable.
    here = RunContext.current().tracking_uri
    parent = of_plugin(run, uri or (here if here.startswith("http") else None))
    try:
        if parent is None and uri:
            parent = find_or_make(uri, run.run_id, json.loads(record.to_json()))
        elif parent and uri:
            parent.describe(json.loads(record.to_json()))
    except Exception as error:  # MLflow's stores raise many types of errors
        say(_unreachable(uri, error))
    if parent is None and not uri:
        say("warning: MLflow does not track this run: KFP's MLflow plugin is off, and tracking.uri is not a server (http://...)")
    return parent


def _unreachable(uri: str | None, error: Exception, more: str = "") -> str:
    if is_refusal(error) or is_denial(error):
        return f"warning: {refusal(uri or '', error)}{more}"
    return f"warning: MLflow at {mask(uri or '')} is unreachable from this machine ({first_line(error)}){more}"


def _ended(
    submitted: SubmittedRun, run: Run, states: Mapping[str, StageState], parent: Parent | None, say: Callable[[str], None]
) -> SubmittedRun:
    state = run.state
    tags: dict[str, str] = {}
    try:
        tags = reconcile(parent, state) if parent else {}
    except Exception as unreachable:  # see _parent; the run has ended and is still reported
        say(_unreachable(parent.uri if parent else None, unreachable, "; whether the model was blessed is unknown"))
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
            error = "the run was terminated"
        if failed and not error:
            why = "; ".join(f"{stage}: {s.message or 'failed'}" for stage, s in failed.items())
            error = f"{why}. See switchyard runs logs {run.run_id} {next(iter(failed))}"
    elif tags.get("blessed") == "false":
        code, status = EXIT_NOT_BLESSED, "not_blessed"
    elif tags.get("blessed") == "true":
        status = "blessed"
    shown = {stage: s.state for stage, s in states.items()}
    return replace(submitted, state=state, status=status, stages=shown, error=error or None, exit_code=code)
