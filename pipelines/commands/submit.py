"""`switchyard submit`: submits a pipeline to a Kubeflow cluster, once or on a schedule."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from switchyard.components.errors import UserError
from switchyard.pipelines.commands.options import (
    EXIT_CODES,
    connection_options,
    handle_errors,
    json_option,
    overrides_option,
    pipeline_argument,
    trainers_option,
    workspace_option,
)

if TYPE_CHECKING:
    from switchyard.pipelines.runners.kubeflow.cluster.client import Connection


class _Seconds(click.FloatRange):
    """Seconds, or a duration such as `10m`, as in the config."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from switchyard.pipelines.config.kubeflow import is_duration, seconds

        try:
            number = float(seconds(value) if is_duration(value) else value)
        except ValueError:
            self.fail(f"{value!r} is no duration; give 90s, 10m, 1h, or a number of seconds", param, ctx)
        return float(super().convert(number, param, ctx))


@click.command("submit", epilog=EXIT_CODES)
@pipeline_argument
@click.option("--experiment", metavar="NAME", help="Experiment in KFP and MLflow.  [default: the pipeline's]")
@click.option(
    "--schedule",
    metavar="CRON",
    help='Make a recurring run, e.g. "0 3 * * *", in the time zone of KFP\'s controller (UTC unless it was changed).',
)
@click.option("--catchup/--no-catchup", default=None, help="With --schedule: run missed runs later.  [default: no]")
@click.option("--max-concurrency", type=click.IntRange(1, 10), help="With --schedule: concurrent runs.  [default: 1]")
@click.option("--wait", is_flag=True, help="Follow the run to its end; the exit code is that of switchyard run.")
@click.option(
    "--heal",
    type=click.IntRange(0, 100),
    metavar="N",
    help="With --wait: retries of a run whose pods were evicted or deleted.  [default: 2]",
)
@click.option(
    "--stuck",
    type=_Seconds(min=1),
    metavar="DURATION",
    help="With --wait: fail if a pod cannot start for this long: 90s, 10m, 1h, or seconds.  [default: 10m]",
)
@click.option("--poll", default=5.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds between polls of the run.")
@connection_options
@trainers_option
@overrides_option
@json_option
@workspace_option
@handle_errors
def command(
    pipeline: Path,
    experiment: str | None,
    schedule: str | None,
    catchup: bool | None,
    max_concurrency: int | None,
    wait: bool,
    heal: int | None,
    stuck: float | None,
    poll: float,
    connection: Connection,
    trainers: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    workspace: Path | None,
) -> None:
    """Run PIPELINE on Kubeflow Pipelines, now or on a schedule."""
    from switchyard.pipelines.api import submit as api
    from switchyard.pipelines.runners.kubeflow.cluster.schedules import schedule_workflow

    if not schedule and (catchup is not None or max_concurrency is not None):
        raise UserError("--catchup, --no-catchup and --max-concurrency take effect only with --schedule; add it, or remove them.")
    if not wait and (heal is not None or stuck is not None):
        raise UserError("--heal and --stuck take effect only with --wait, which follows the run; add it, or remove them.")
    if schedule and wait:
        raise UserError("--wait, --schedule: --wait follows one run, and a schedule starts many; give one of them.")
    common: dict[str, Any] = {**asdict(connection), "experiment": experiment, "overrides": overrides, "trainer": trainers}
    common |= {"workspace": workspace, "progress": True}
    if schedule:
        made = api.schedule(pipeline, schedule, catchup=bool(catchup), max_concurrency=max_concurrency or 1, **common)
        text = (
            f"recurring run {made.recurring_run_id}: {made.cron} (seconds first), in the time zone of KFP's controller: UTC, "
            "unless its CRON_SCHEDULE_TIMEZONE says otherwise\n"
            f"Its runs are named {schedule_workflow(made.name)}-<number>-...; see switchyard runs schedules list"
        )
        _print(text, asdict(made), as_json=as_json)
        return
    run = api.submit(pipeline, wait=wait, heal=heal, stuck=stuck, poll=poll, check=False, **common)
    found: dict[str, Any] = {
        "run_id": run.run_id,
        "url": run.url,
        "mlflow_run_id": run.mlflow_run_id,
        "mlflow_url": run.mlflow_url,
    }
    if wait:
        found |= {"state": run.state, "status": run.status, "stages": run.stages, "error": run.error}
    _print(f"{run.status}{f': {run.error}' if run.error else ''}" if wait else api.links(run), found, as_json=as_json)
    sys.exit(run.exit_code)


def _print(lines: str, found: dict[str, Any], *, as_json: bool) -> None:
    click.echo(lines, err=as_json)
    if as_json:
        click.echo(json.dumps(found))
