"""`switchyard runs`: lists, shows, terminates and retries runs on a Kubeflow cluster, prints logs, and manages recurring runs."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from switchyard.components.errors import StageError, UserError
from switchyard.components.text.visible import in_line, visible
from switchyard.pipelines.commands.options import (
    connection_options,
    handle_errors,
    json_option,
    tracking_uri_option,
)
from switchyard.pipelines.runners.kubeflow.cluster.client import Connection, KubeflowClient
from switchyard.pipelines.runners.kubeflow.cluster.run import TERMINAL, Run
from switchyard.pipelines.runners.kubeflow.compiler.plan import stage_names, task_name
from switchyard.pipelines.runners.kubeflow.runs.logs import following_log, log_of
from switchyard.pipelines.runners.kubeflow.runs.plugin import of_plugin
from switchyard.pipelines.runners.kubeflow.runs.reconciling import reconcile_ended
from switchyard.pipelines.runners.kubeflow.runs.states import states_of
from switchyard.pipelines.terminal.output import table_console

if TYPE_CHECKING:
    from switchyard.pipelines.runners.kubeflow.cluster.schedules import Recurring, Schedules

_POLL_SECONDS = 2.0
# Number of recent runs searched for those of a recurring run.
_RECENT = 200
# Seconds to wait for a terminated run; KFP takes about six.
_ENDED_SECONDS = 30.0


@click.group("runs")
def command() -> None:
    """Manage runs on Kubeflow Pipelines."""


@command.command("list")
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="Number of runs to list, newest first.")
@connection_options
@tracking_uri_option
@json_option
@handle_errors
def runs_list(experiment: str | None, limit: int, connection: Connection, tracking_uri: str | None, as_json: bool) -> None:
    """List runs, newest first."""
    list_runs(connection, tracking_uri, experiment, limit, as_json=as_json)


@command.command("show")
@click.argument("run_id", metavar="RUN")
@connection_options
@tracking_uri_option
@json_option
@handle_errors
def runs_show(run_id: str, connection: Connection, tracking_uri: str | None, as_json: bool) -> None:
    """Show a run and its tasks."""
    show_run(connection, tracking_uri, run_id, as_json=as_json)


@command.command("logs")
@click.argument("run_id", metavar="RUN")
@click.argument("stage", required=False)
@click.option("--follow", is_flag=True, help="Poll and print the logs until the pod ends.")
@connection_options
@handle_errors
def runs_logs(run_id: str, stage: str | None, follow: bool, connection: Connection) -> None:
    """Print the logs of a run's pods, or of one STAGE's."""
    print_logs(connection, run_id, stage, follow=follow)


@command.command("terminate")
@click.argument("run_id", metavar="RUN")
@connection_options
@tracking_uri_option
@handle_errors
def runs_terminate(run_id: str, connection: Connection, tracking_uri: str | None) -> None:
    """Stop a run."""
    terminate_run(connection, tracking_uri, run_id)


@command.command("retry")
@click.argument("run_id", metavar="RUN")
@connection_options
@handle_errors
def runs_retry(run_id: str, connection: Connection) -> None:
    """Run the failed tasks of a run again; finished ones are kept."""
    retry_run(connection, run_id)


@command.group("schedules")
def schedules() -> None:
    """Manage recurring runs (submit --schedule)."""


@schedules.command("list")
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@connection_options
@json_option
@handle_errors
def schedules_list(experiment: str | None, connection: Connection, as_json: bool) -> None:
    """List recurring runs."""
    list_schedules(connection, experiment, as_json=as_json)


@schedules.command("pause")
@click.argument("schedule", metavar="SCHEDULE")
@connection_options
@handle_errors
def schedules_pause(schedule: str, connection: Connection) -> None:
    """Pause a recurring run; runs in progress continue."""
    pause_schedule(connection, schedule)


@schedules.command("resume")
@click.argument("schedule", metavar="SCHEDULE")
@connection_options
@handle_errors
def schedules_resume(schedule: str, connection: Connection) -> None:
    """Resume a paused recurring run."""
    resume_schedule(connection, schedule)


@schedules.command("delete")
@click.argument("schedule", metavar="SCHEDULE")
@click.option(
    "--force", is_flag=True, help="Delete it even if its runs are in progress; KFP then shows them as running indefinitely."
)
@connection_options
@handle_errors
def schedules_delete(schedule: str, force: bool, connection: Connection) -> None:
    """Delete a recurring run."""
    delete_schedule(connection, schedule, force=force)


def list_runs(connection: Connection, tracking_uri: str | None, experiment: str | None, limit: int, *, as_json: bool) -> None:
    """Prints the newest runs."""
    client = _client(connection)
    runs = client.runs(experiment, limit)
    _reconcile(client, runs, tracking_uri)
    rows = [_summary(client, run) for run in runs]
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "name", "state", "created", "schedule"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(row["run_id"], in_line(row["name"]), row["state"], row["created_at"], row["schedule"] or "")
    table_console().print(table if rows else "no runs")


def show_run(connection: Connection, tracking_uri: str | None, run_id: str, *, as_json: bool) -> None:
    """Prints a run and its tasks."""
    client = _client(connection)
    run = client.run(run_id)
    _reconcile(client, [run], tracking_uri)
    try:
        workflow = client.workflow(run_id)
    except StageError as error:
        click.echo(f"warning: {error}; the progress shown may be outdated", err=True)
        workflow = None
    task_of, states = states_of(client, run, workflow)
    tasks = [
        {"name": n, "state": s.state, "seconds": s.seconds, "error": s.message or None, "task": task_of[n]}
        for n, s in states.items()
    ]
    failed = any(s.state == "FAILED" for s in states.values())
    reason = run.error or (workflow.error if workflow and run.state == "FAILED" and not failed else "")
    found = {**_summary(client, run), "error": reason or None, "tasks": tasks}
    if as_json:
        click.echo(json.dumps(found))
        return
    for key in ("run_id", "name", "state", "created_at", "schedule", "url", "mlflow_url", "error"):
        if found[key]:
            click.echo(f"{key}: {in_line(str(found[key]))}")
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "state", "seconds", "message"):
        table.add_column(column)
    before = None
    for task in tasks:
        # For stages that share a task, KFP reports only their total seconds.
        seconds = "" if task["seconds"] is None else "”" if task["task"] == before else f"{task['seconds']:.0f}"
        before = task["task"]
        table.add_row(str(task["name"]), str(task["state"]), seconds, in_line(str(task["error"] or "")))
    table_console().print(table)


def print_logs(connection: Connection, run_id: str, stage: str | None, *, follow: bool) -> None:
    """Prints the logs of a stage's pods, or of all pods.

    Raises:
        UserError: the stage does not exist, or none of KFP's sources has the log.
    """
    client = _client(connection)
    run = client.run(run_id)
    workflow = client.workflow(run_id)
    if workflow is None:
        raise UserError(
            f"the logs of run {run_id} cannot be found, because this KFP no longer has its Workflow; use kubectl logs with the "
            f"label pipeline/runid={run_id}."
        )
    wanted = task_name(stage) if stage else None
    names = [n for n in workflow.task_names() if wanted in (None, n, *stage_names(n))]
    nodes = [node for name in names for node in workflow.executors(name)]
    if not nodes:
        known = ", ".join(s for n in workflow.task_names() for s in stage_names(n)) or "none yet"
        raise UserError(f"run {run_id} has no pod" + (f" of a stage {stage!r}; its stages: {known}" if stage else " yet"))
    missing = []
    for node in nodes:
        pod = workflow.pod_name(node)
        if len(nodes) > 1:
            click.echo(f"==> {pod} <==")
        text = log_of(client, run_id, workflow, node)
        if text is None:
            missing.append(pod)
            continue
        click.echo(visible(text), nl=False)
        if follow and node is nodes[-1]:
            for more in following_log(client, run, workflow, node, text):
                click.echo(visible(more), nl=False)
    if missing:
        raise UserError(
            f"KFP has no log of {', '.join(missing)}: its API has logs of finished pods, and its web page, which "
            f"{client.host} may not be, those of running and deleted ones too; use the page's address, or kubectl logs POD -n "
            f"{connection.namespace or workflow.namespace or 'kubeflow'}."
        )


def list_schedules(connection: Connection, experiment: str | None, *, as_json: bool) -> None:
    """Prints the recurring runs."""
    client = _client(connection)
    rows = [_schedule(s) for s in _schedules(client).all(client.experiment(experiment) if experiment else None)]
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("schedule", "name", "state", "cron", "catchup", "most"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(
            *(in_line(str(row[k])) for k in ("recurring_run_id", "name", "state", "cron", "catchup", "max_concurrency"))
        )
    table_console().print(table if rows else "no recurring runs")


def pause_schedule(connection: Connection, schedule: str) -> None:
    """Pauses a recurring run."""
    _schedules(_client(connection)).pause(schedule)
    click.echo(f"recurring run {schedule} is paused; resume it with switchyard runs schedules resume {schedule}")


def resume_schedule(connection: Connection, schedule: str) -> None:
    """Resumes a paused recurring run."""
    _schedules(_client(connection)).resume(schedule)
    click.echo(f"recurring run {schedule} is resumed")


def delete_schedule(connection: Connection, schedule: str, *, force: bool) -> None:
    """Deletes a recurring run.

    Raises:
        UserError: its runs are in progress, which KFP would orphan, and `force` is not set.
    """
    client = _client(connection)
    schedules = _schedules(client)
    schedules.exists(schedule)
    running = [r.run_id for r in client.runs(None, _RECENT) if r.schedule == schedule and r.state not in TERMINAL]
    if running and not force:
        raise UserError(
            f"recurring run {schedule} has runs in progress: {', '.join(running)}. Kubernetes deletes their Workflows with it, "
            "and KFP shows them as running indefinitely. Pause it and wait for them, terminate them (switchyard runs terminate), "
            "or give --force."
        )
    schedules.delete(schedule)
    click.echo(f"recurring run {schedule} is deleted" + (f"; orphaned: {', '.join(running)}" if running else ""))


def terminate_run(connection: Connection, tracking_uri: str | None, run_id: str) -> None:
    """Stops a run and waits for its end; a run that has already ended stays unchanged."""
    client = _client(connection)
    run = client.run(run_id)
    if run.state in TERMINAL:
        click.echo(f"run {run_id} has ended already: {run.state}")
    else:
        client.terminate(run_id)
        deadline = time.monotonic() + _ENDED_SECONDS
        while (run := client.run(run_id)).state not in TERMINAL and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS / 4)
        ended = run.state in TERMINAL
        click.echo(f"run {run_id} " + (f"has ended: {run.state}" if ended else "is being stopped; see switchyard runs show"))
    _reconcile(client, [run], tracking_uri)


def retry_run(connection: Connection, run_id: str) -> None:
    """Retries the failed tasks of a run."""
    client = _client(connection)
    client.retry(run_id)
    click.echo(f"run {run_id} is retried: {client.url(run_id)}")


def _reconcile(client: KubeflowClient, runs: list[Run], tracking_uri: str | None) -> None:
    for warning in reconcile_ended(client, runs, tracking_uri):
        click.echo(f"warning: {warning}", err=True)


def _client(connection: Connection) -> KubeflowClient:
    client = KubeflowClient(connection)
    client.check()
    return client


def _schedules(client: KubeflowClient) -> Schedules:
    from switchyard.pipelines.runners.kubeflow.cluster.schedules import Schedules

    return Schedules(client)


def _summary(client: KubeflowClient, run: Run) -> dict[str, Any]:
    parent = of_plugin(run)
    return {
        "run_id": run.run_id,
        "name": run.name,
        "state": run.state,
        "schedule": run.schedule,
        "created_at": _time(run.created),
        "url": client.url(run.run_id),
        "mlflow_url": parent.url if parent else None,
    }


def _schedule(recurring: Recurring) -> dict[str, Any]:
    return {
        "recurring_run_id": recurring.recurring_run_id,
        "name": recurring.name,
        "state": recurring.state,
        "cron": recurring.cron,
        "catchup": recurring.catchup,
        "max_concurrency": recurring.most,
        "created_at": _time(recurring.created),
    }


def _time(when: datetime | None) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S") if when else ""
