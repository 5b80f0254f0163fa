"""`switchyard submit`: a pipeline to a Kubeflow cluster, once or by a schedule."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from switchyard.pipelines.commands.options import (
    EXIT_CODES,
    connection_options,
    handle_errors,
    json_option,
    overrides_option,
    pipeline_argument,
    trainers_option,
    with_trainer_overrides,
    workspace_option,
)


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
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="With --wait: fail if a pod cannot start for this long.  [default: 600]",
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
    connection: Any,
    trainers: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    workspace: Path | None,
) -> None:
    """Run PIPELINE on Kubeflow Pipelines, now or on a schedule."""
    from switchyard.components.errors import UserError
    from switchyard.pipelines.api.submit import Submission
    from switchyard.pipelines.api.submit import submit as send
    from switchyard.pipelines.runners.kubeflow.runs.following import Following

    if not schedule and (catchup is not None or max_concurrency is not None):
        raise UserError("--catchup, --no-catchup and --max-concurrency belong to --schedule; add it, or leave them out.")
    if not wait and (heal is not None or stuck is not None):
        raise UserError("--heal and --stuck belong to --wait: it is what follows the run; add it, or leave them out.")
    submission = Submission(
        connection=connection,
        experiment=experiment,
        cron=schedule,
        wait=wait,
        as_json=as_json,
        following=Following(poll=poll, heal=2 if heal is None else heal, stuck=stuck or 600.0),
        catchup=bool(catchup),
        most=max_concurrency or 1,
    )
    sys.exit(send(pipeline, with_trainer_overrides(overrides, trainers), workspace, submission))
