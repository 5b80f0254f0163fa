"""The part of the `switchyard` command that has to do with Kubeflow Pipelines: compile, submit, runs, doctor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from switchyard.pipelines.commands.options import (
    EXIT_CODES,
    chosen,
    guarded,
    json_option,
    overrides_option,
    pipeline_argument,
    trainers_option,
    workspace_option,
)


@click.command("compile")
@pipeline_argument
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: PIPELINE.kfp.yaml beside the YAML]"
)
@click.option("--source", type=click.Path(path_type=Path, dir_okay=False), help="Also write the generated Python source.")
@trainers_option
@overrides_option
@workspace_option
@guarded
def compile_(
    pipeline: Path,
    output: Path | None,
    source: Path | None,
    trainers: tuple[str, ...],
    overrides: tuple[str, ...],
    workspace: Path | None,
) -> None:
    """Compile PIPELINE for Kubeflow Pipelines v2; no cluster is needed."""
    from switchyard.pipelines.commands.compile import write_compiled

    click.echo(write_compiled(pipeline, chosen(overrides, trainers), workspace, output, source))


def _connection(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say where Kubeflow Pipelines is, and hands them on as one `connection`."""

    @wraps(command)
    def run(
        host: str,
        namespace: str | None,
        token_file: Path | None,
        ca_cert: Path | None,
        insecure: bool,
        timeout: float,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        from switchyard.pipelines.runners.kubeflow.cluster.client import Connection

        return command(*args, connection=Connection(host, namespace, token_file, ca_cert, insecure, timeout), **kwargs)

    options = (
        click.option("--host", envvar="SWITCHYARD_KFP_HOST", required=True, metavar="URL", help="Kubeflow Pipelines."),
        click.option("--namespace", envvar="SWITCHYARD_KFP_NAMESPACE", help="Yours, on a Kubeflow of several users."),
        click.option(
            "--token-file", type=click.Path(path_type=Path), help="File with a bearer token.  [default: SWITCHYARD_KFP_TOKEN]"
        ),
        click.option("--ca-cert", type=click.Path(path_type=Path), help="File with the authority of the server's certificate."),
        click.option("--insecure", is_flag=True, help="Do not check the server's certificate."),
        click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(min=1), help="Seconds for a request."),
    )
    for option in reversed(options):
        run = option(run)
    return run


_tracking_uri = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    metavar="URI",
    help="MLflow as this machine reaches it.  [default: the pipeline's]",
)


@click.command(epilog=EXIT_CODES)
@pipeline_argument
@click.option("--experiment", metavar="NAME", help="KFP's and MLflow's experiment.  [default: the pipeline's]")
@click.option(
    "--schedule",
    metavar="CRON",
    help='Make a recurring run, e.g. "0 3 * * *", in the time zone of KFP\'s controller (UTC unless it was changed).',
)
@click.option("--catchup/--no-catchup", default=None, help="With --schedule: make up for runs that are late.  [default: no]")
@click.option("--max-concurrency", type=click.IntRange(1, 10), help="With --schedule: runs at the same time.  [default: 1]")
@click.option("--wait", is_flag=True, help="Follow the run to its end; the exit code is that of switchyard run.")
@click.option(
    "--heal",
    type=click.IntRange(0, 100),
    metavar="N",
    help="With --wait: so often a run whose pods were evicted or deleted is tried again.  [default: 2]",
)
@click.option(
    "--stuck",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="With --wait: end with an error when a pod has been unable to start for so long.  [default: 600]",
)
@click.option("--poll", default=5.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds between looks at the run.")
@_connection
@trainers_option
@overrides_option
@json_option
@workspace_option
@guarded
def submit(
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
    """Run PIPELINE on Kubeflow Pipelines: now, or by a schedule."""
    from switchyard.components.errors import UserError
    from switchyard.pipelines.commands.submit import Submission
    from switchyard.pipelines.commands.submit import submit as send
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
    sys.exit(send(pipeline, chosen(overrides, trainers), workspace, submission))


@click.command()
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@_connection
@_tracking_uri
@trainers_option
@overrides_option
@json_option
@guarded
def doctor(
    pipeline: Path | None,
    connection: Any,
    tracking_uri: str | None,
    trainers: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Look whether a cluster is fit for a first run, of PIPELINE or of any; exit code 1 when something is not.

    What Kubernetes alone knows is asked by kubectl, with its current context.
    """
    from switchyard.components.errors import UserError
    from switchyard.pipelines.commands.doctor import doctor as examine

    if pipeline is None and (overrides or trainers):
        raise UserError("--set and --trainer change a pipeline: give PIPELINE, or leave them out.")
    sys.exit(examine(connection, pipeline, chosen(overrides, trainers), tracking_uri, as_json=as_json))


@click.group()
def runs() -> None:
    """See and steer runs on Kubeflow Pipelines."""


@runs.command("list")
@click.option("--experiment", metavar="NAME", help="Only of this experiment.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="So many, the newest first.")
@_connection
@_tracking_uri
@json_option
@guarded
def runs_list(experiment: str | None, limit: int, connection: Any, tracking_uri: str | None, as_json: bool) -> None:
    """List runs, the newest first."""
    from switchyard.pipelines.commands.runs import list_runs

    list_runs(connection, tracking_uri, experiment, limit, as_json=as_json)


@runs.command("show")
@click.argument("run_id", metavar="RUN")
@_connection
@_tracking_uri
@json_option
@guarded
def runs_show(run_id: str, connection: Any, tracking_uri: str | None, as_json: bool) -> None:
    """Show a run and its tasks."""
    from switchyard.pipelines.commands.runs import show_run

    show_run(connection, tracking_uri, run_id, as_json=as_json)


@runs.command("logs")
@click.argument("run_id", metavar="RUN")
@click.argument("stage", required=False)
@click.option("--follow", is_flag=True, help="Print what the pod prints until it ends, by polling.")
@_connection
@guarded
def runs_logs(run_id: str, stage: str | None, follow: bool, connection: Any) -> None:
    """Print the logs of a run's pods, or of one STAGE's."""
    from switchyard.pipelines.commands.runs import print_logs

    print_logs(connection, run_id, stage, follow=follow)


@runs.command("terminate")
@click.argument("run_id", metavar="RUN")
@_connection
@_tracking_uri
@guarded
def runs_terminate(run_id: str, connection: Any, tracking_uri: str | None) -> None:
    """Stop a run."""
    from switchyard.pipelines.commands.runs import terminate_run

    terminate_run(connection, tracking_uri, run_id)


@runs.command("retry")
@click.argument("run_id", metavar="RUN")
@_connection
@guarded
def runs_retry(run_id: str, connection: Any) -> None:
    """Run the failed tasks of a run again; finished ones are kept."""
    from switchyard.pipelines.commands.runs import retry_run

    retry_run(connection, run_id)


@runs.group("schedules")
def schedules() -> None:
    """See and steer recurring runs (submit --schedule)."""


@schedules.command("list")
@click.option("--experiment", metavar="NAME", help="Only of this experiment.")
@_connection
@json_option
@guarded
def schedules_list(experiment: str | None, connection: Any, as_json: bool) -> None:
    """List recurring runs."""
    from switchyard.pipelines.commands.runs import list_schedules

    list_schedules(connection, experiment, as_json=as_json)


@schedules.command("pause")
@click.argument("schedule", metavar="SCHEDULE")
@_connection
@guarded
def schedules_pause(schedule: str, connection: Any) -> None:
    """Have a recurring run start no more runs; those under way end as they would."""
    from switchyard.pipelines.commands.runs import pause_schedule

    pause_schedule(connection, schedule)


@schedules.command("resume")
@click.argument("schedule", metavar="SCHEDULE")
@_connection
@guarded
def schedules_resume(schedule: str, connection: Any) -> None:
    """Have a paused recurring run start runs again."""
    from switchyard.pipelines.commands.runs import resume_schedule

    resume_schedule(connection, schedule)


@schedules.command("delete")
@click.argument("schedule", metavar="SCHEDULE")
@click.option("--force", is_flag=True, help="Also when runs of it are under way: KFP shows those as running for ever.")
@_connection
@guarded
def schedules_delete(schedule: str, force: bool, connection: Any) -> None:
    """Delete a recurring run."""
    from switchyard.pipelines.commands.runs import delete_schedule

    delete_schedule(connection, schedule, force=force)
