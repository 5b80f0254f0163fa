"""`switchyard runs`: the runs of a Kubeflow cluster: list, show, logs, terminate, retry."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.table import Table

from components.errors import UserError
from pipelines.runners.kubeflow.client import Connection, KubeflowClient, pods
from pipelines.runners.kubeflow.parent_run import of_plugin
from pipelines.runners.quiet import table_console


def list_runs(connection: Connection, experiment: str | None, limit: int, *, as_json: bool) -> None:
    """Prints the newest runs."""
    client = _client(connection)
    rows = [_summary(client, run) for run in client.runs(experiment, limit)]
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "name", "state", "created"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(row["run_id"], row["name"], row["state"], row["created_at"])
    table_console().print(table if rows else "no runs")


def show_run(connection: Connection, run_id: str, *, as_json: bool) -> None:
    """Prints a run and its tasks."""
    client = _client(connection)
    run = client.run(run_id)
    details = (run.run_details.task_details if run.run_details else None) or []
    tasks = [
        {
            "name": str(d.display_name),
            "state": str(d.state or "PENDING"),
            "seconds": round((d.end_time - d.start_time).total_seconds(), 1) if d.end_time and d.start_time else None,
            "error": d.error.message if d.error else None,
        }
        for d in sorted(details, key=lambda d: (d.start_time is None, str(d.start_time)))
    ]
    found = {**_summary(client, run), "error": run.error.message if run.error else None, "tasks": tasks}
    if as_json:
        click.echo(json.dumps(found))
        return
    for key in ("run_id", "name", "state", "created_at", "url", "mlflow_url", "error"):
        if found[key]:
            click.echo(f"{key}: {found[key]}")
    table = Table(box=None, pad_edge=False)
    for column in ("task", "state", "seconds", "error"):
        table.add_column(column)
    for task in tasks:
        table.add_row(task["name"], task["state"], str(task["seconds"] or ""), task["error"] or "")
    table_console().print(table)


def print_logs(connection: Connection, run_id: str, stage: str | None, *, follow: bool) -> None:
    """Prints what the pods of a stage, or of all, have printed."""
    client = _client(connection)
    run = client.run(run_id)
    details = (run.run_details.task_details if run.run_details else None) or []
    names = [stage] if stage else list(dict.fromkeys(str(d.display_name) for d in details))
    found = list(dict.fromkeys(pod for name in names for pod in pods(run, name)))
    if not found:
        known = ", ".join(sorted({str(d.display_name) for d in details})) or "none yet"
        raise UserError(f"run {run_id} has no pod" + (f" of a stage {stage!r}; its tasks: {known}" if stage else " yet"))
    for pod in found:
        if len(found) > 1:
            click.echo(f"==> {pod} <==")
        for chunk in client.log(run_id, pod, follow=follow):
            sys.stdout.write(chunk.decode("utf-8", "replace"))
            sys.stdout.flush()


def terminate_run(connection: Connection, run_id: str) -> None:
    """Stops a run."""
    _client(connection).terminate(run_id)
    click.echo(f"run {run_id} is being stopped")


def retry_run(connection: Connection, run_id: str) -> None:
    """Runs what failed again."""
    client = _client(connection)
    client.retry(run_id)
    click.echo(f"run {run_id} goes on: {client.url(run_id)}")


def _client(connection: Connection) -> KubeflowClient:
    client = KubeflowClient(connection)
    client.check()
    return client


def _summary(client: KubeflowClient, run: Any) -> dict[str, Any]:
    parent = of_plugin(run)
    return {
        "run_id": run.run_id,
        "name": run.display_name,
        "state": str(run.state or "PENDING"),
        "created_at": run.created_at.strftime("%Y-%m-%d %H:%M:%S") if run.created_at else "",
        "url": client.url(run.run_id),
        "mlflow_url": parent.url if parent else None,
    }
