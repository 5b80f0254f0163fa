"""The `switchyard` command: parses, calls, prints. Heavy imports happen inside the commands: `--help` stays fast."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from components.errors import (
    EXIT_BAD_INPUT,
    EXIT_DATA_GATE,
    EXIT_FAILED,
    DataGateError,
    StageError,
    TrainingError,
    UserError,
)

EXIT_CODES = """\b
Exit codes:
  0  done
  2  bad input: config, data, code or devices
  3  stopped by the data gate
  4  trained, but not blessed
  1  anything else"""


def _guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """A user's mistake ends with one message and a code, not with a stack trace."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            _fail(str(error), EXIT_BAD_INPUT)
        except DataGateError as error:
            _fail(str(error), EXIT_DATA_GATE)
        except (StageError, TrainingError) as error:
            _fail(str(error), EXIT_FAILED)
        except KeyboardInterrupt:
            _fail("cancelled; finished stages are kept, the next run goes on from them", EXIT_FAILED)

    return run


def _fail(message: str, code: int) -> None:
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(message, err=True)
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EXIT_CODES)
@click.version_option(package_name="switchyard", prog_name="switchyard")
def main() -> None:
    """One ML pipeline: ingest, validate, transform, train, evaluate, register.

    With a TensorFlow or a PyTorch trainer, tracked in MLflow.
    """


_workspace = click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for everything a run writes.  [default: .switchyard beside the YAML]",
)


@main.command(epilog=EXIT_CODES)
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@click.option(
    "--trainer",
    "trainers",
    metavar="NAME",
    multiple=True,
    help="tensorflow, pytorch, or module:Class; repeat it to train several and bless the best. Sets trainer.framework.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override any value of the YAML; may be repeated.")
@click.option("--data", metavar="PATH", multiple=True, help="Without a YAML: file, glob or URI of the data; may be repeated.")
@click.option("--label", metavar="COLUMN", help="Without a YAML: the column to predict.")
@click.option(
    "--runner", default="local", show_default=True, metavar="NAME", help="local, kfp-local or kfp-docker; a cluster: see submit."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of stdout.")
@_workspace
@_guarded
def run(
    pipeline: Path | None,
    trainers: tuple[str, ...],
    overrides: tuple[str, ...],
    data: tuple[str, ...],
    label: str | None,
    runner: str,
    as_json: bool,
    workspace: Path | None,
) -> None:
    r"""Run a pipeline: PIPELINE is its YAML, or give --data and --label.

    \b
    switchyard run pipeline.yaml
    switchyard run pipeline.yaml --trainer pytorch
    switchyard run pipeline.yaml --trainer tensorflow --trainer pytorch
    switchyard run pipeline.yaml --set trainer.hyperparameters.learning_rate=0.01
    switchyard run --data rides.csv --label big_tipper
    """
    from pipelines.run_command import run_pipeline

    document = _document(pipeline, data, label)
    chosen = (f"trainer.framework={trainers[0] if len(trainers) == 1 else json.dumps(trainers)}",) if trainers else ()
    sys.exit(run_pipeline(pipeline, document, (*overrides, *chosen), runner, workspace, as_json=as_json))


def _document(pipeline: Path | None, data: tuple[str, ...], label: str | None) -> dict[str, Any]:
    if pipeline is not None:
        if data or label:
            raise UserError(
                "--data and --label describe a pipeline without a YAML; with one, use --set data.path=... or label=..."
            )
        return {}
    if not data or not label:
        raise UserError("give a pipeline.yaml, or both --data PATH and --label COLUMN. See switchyard run --help.")
    stem = "".join(c if c.isalnum() and c.isascii() else "_" for c in Path(data[0]).name.split(".")[0].lower()).strip("_*")
    name = stem if stem[:1].isalpha() else f"data_{stem}".rstrip("_")
    return {"name": name[:63], "data": {"path": list(data)}, "label": label}


@main.command()
@_workspace
@_guarded
def demo(workspace: Path | None) -> None:
    """Run the breast_cancer example with both trainers and compare them."""
    from pipelines.demo import run_demo

    sys.exit(run_demo(workspace))


@main.command()
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@_workspace
@_guarded
def ui(pipeline: Path | None, host: str, port: int, workspace: Path | None) -> None:
    """Open MLflow's UI on a workspace's runs (that of PIPELINE, or the only one below this folder)."""
    from pipelines.runners.workspace import Workspace, find_workspace
    from pipelines.ui_command import serve_ui

    serve_ui(Workspace(find_workspace(workspace, pipeline)), host, port)


@main.command()
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@_workspace
@_guarded
def upload(pipeline: Path | None, workspace: Path | None) -> None:
    """Send MLflow what could not be sent while it was away."""
    from pipelines.runners.upload import upload as send
    from pipelines.runners.workspace import Workspace, find_workspace

    place = Workspace(find_workspace(workspace, pipeline))
    place.contain_libraries()
    sent = send(place, click.echo)
    click.echo(f"{sent} runs sent" if sent else "nothing to send")


_overrides = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override any value of the YAML.")
_pipeline = click.argument("pipeline", type=click.Path(path_type=Path))
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@main.group()
def schema() -> None:
    """Keep a reviewed schema: infer it, show it, compare it with the data, accept what changed."""


@schema.command("infer")
@_pipeline
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: schema.pbtxt beside the YAML]")
@_overrides
@_workspace
@_guarded
def schema_infer(pipeline: Path, output: Path | None, overrides: tuple[str, ...], workspace: Path | None) -> None:
    """Write the schema of PIPELINE's training split, for you to review."""
    from pipelines.schema_command import infer

    infer(pipeline, overrides, workspace, output)


@schema.command("show")
@click.argument("source", type=click.Path(path_type=Path))
@_guarded
def schema_show(source: Path) -> None:
    """Print a schema: SOURCE is a schema.pbtxt, or a pipeline.yaml that names one."""
    from pipelines.schema_command import show

    show(source)


@schema.command("diff")
@_pipeline
@_overrides
@_workspace
@_guarded
def schema_diff(pipeline: Path, overrides: tuple[str, ...], workspace: Path | None) -> None:
    """Print what PIPELINE's data would change in its reviewed schema; exit code 1 when it would change something."""
    from pipelines.schema_command import diff

    sys.exit(diff(pipeline, overrides, workspace))


@schema.command("accept")
@_pipeline
@click.option("--feature", "features", multiple=True, metavar="NAME", help="Only this feature; may be repeated.")
@_overrides
@_workspace
@_guarded
def schema_accept(pipeline: Path, features: tuple[str, ...], overrides: tuple[str, ...], workspace: Path | None) -> None:
    """Change PIPELINE's reviewed schema so that its data fits."""
    from pipelines.schema_command import accept

    accept(pipeline, overrides, workspace, features)


@main.command("compile")
@_pipeline
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: PIPELINE.kfp.yaml beside the YAML]"
)
@click.option("--source", type=click.Path(path_type=Path, dir_okay=False), help="Also write the generated Python source.")
@_overrides
@_workspace
@_guarded
def compile_(
    pipeline: Path, output: Path | None, source: Path | None, overrides: tuple[str, ...], workspace: Path | None
) -> None:
    """Compile PIPELINE for Kubeflow Pipelines v2; no cluster is needed."""
    from pipelines.compile_command import write_compiled

    click.echo(write_compiled(pipeline, overrides, workspace, output, source))


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
        from pipelines.runners.kubeflow.client import Connection

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


@main.command(epilog=EXIT_CODES)
@_pipeline
@click.option("--experiment", metavar="NAME", help="KFP's and MLflow's experiment.  [default: the pipeline's]")
@click.option("--schedule", metavar="CRON", help='Make a recurring run, e.g. "0 3 * * *" (UTC).')
@click.option("--wait", is_flag=True, help="Follow the run to its end; the exit code is that of switchyard run.")
@click.option("--poll", default=5.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds between looks at the run.")
@_connection
@_overrides
@_as_json
@_workspace
@_guarded
def submit(
    pipeline: Path,
    experiment: str | None,
    schedule: str | None,
    wait: bool,
    poll: float,
    connection: Any,
    overrides: tuple[str, ...],
    as_json: bool,
    workspace: Path | None,
) -> None:
    """Run PIPELINE on Kubeflow Pipelines: now, or by a schedule."""
    from pipelines.submit_command import Submission
    from pipelines.submit_command import submit as send

    sys.exit(send(pipeline, overrides, workspace, Submission(connection, experiment, schedule, wait, as_json, poll)))


@main.group()
def runs() -> None:
    """See and steer runs on Kubeflow Pipelines."""


@runs.command("list")
@click.option("--experiment", metavar="NAME", help="Only of this experiment.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="So many, the newest first.")
@_connection
@_as_json
@_guarded
def runs_list(experiment: str | None, limit: int, connection: Any, as_json: bool) -> None:
    """List runs, the newest first."""
    from pipelines.runs_command import list_runs

    list_runs(connection, experiment, limit, as_json=as_json)


@runs.command("show")
@click.argument("run_id", metavar="RUN")
@_connection
@_as_json
@_guarded
def runs_show(run_id: str, connection: Any, as_json: bool) -> None:
    """Show a run and its tasks."""
    from pipelines.runs_command import show_run

    show_run(connection, run_id, as_json=as_json)


@runs.command("logs")
@click.argument("run_id", metavar="RUN")
@click.argument("stage", required=False)
@click.option("--follow", is_flag=True, help="Go on as the pod prints.")
@_connection
@_guarded
def runs_logs(run_id: str, stage: str | None, follow: bool, connection: Any) -> None:
    """Print the logs of a run's pods, or of one STAGE's."""
    from pipelines.runs_command import print_logs

    print_logs(connection, run_id, stage, follow=follow)


@runs.command("terminate")
@click.argument("run_id", metavar="RUN")
@_connection
@_guarded
def runs_terminate(run_id: str, connection: Any) -> None:
    """Stop a run."""
    from pipelines.runs_command import terminate_run

    terminate_run(connection, run_id)


@runs.command("retry")
@click.argument("run_id", metavar="RUN")
@_connection
@_guarded
def runs_retry(run_id: str, connection: Any) -> None:
    """Run the failed tasks of a run again; finished ones are kept."""
    from pipelines.runs_command import retry_run

    retry_run(connection, run_id)


_registry = click.option("--tracking-uri", metavar="URI", help="MLflow server or database.  [default: the workspace's]")
_why = click.option("--why", required=True, metavar="TEXT", help="The reason, kept in the registry.")


@main.group()
def models() -> None:
    """See, compare, promote and roll back registered models."""


@models.command("list")
@click.argument("name", required=False)
@_as_json
@_registry
@_workspace
@_guarded
def models_list(name: str | None, as_json: bool, tracking_uri: str | None, workspace: Path | None) -> None:
    """List versions of the model NAME and every move of its champion; without NAME all models."""
    from pipelines.models_command import registry_uri, show

    show(registry_uri(tracking_uri, workspace), name, as_json=as_json)


@models.command("compare")
@click.argument("name")
@click.argument("versions", nargs=2, metavar="VERSION VERSION")
@click.option("--data", type=click.Path(path_type=Path), help="Evaluate both on the rows of this file; it holds the label.")
@_as_json
@_registry
@_workspace
@_guarded
def models_compare(
    name: str, versions: tuple[str, str], data: Path | None, as_json: bool, tracking_uri: str | None, workspace: Path | None
) -> None:
    """Compare two versions (numbers or aliases) of the model NAME."""
    from pipelines.models_command import compare, registry_uri

    compare(registry_uri(tracking_uri, workspace), name, versions, data, as_json=as_json)


@models.command("promote")
@click.argument("name")
@click.argument("version")
@_why
@click.option("--force", is_flag=True, help="Also a version that was not blessed.")
@_registry
@_workspace
@_guarded
def models_promote(name: str, version: str, why: str, force: bool, tracking_uri: str | None, workspace: Path | None) -> None:
    """Make VERSION (a number or an alias) of the model NAME its champion; the one before becomes `previous`."""
    from pipelines.models_command import promote, registry_uri

    promote(registry_uri(tracking_uri, workspace), name, version, why, force=force)


@models.command("rollback")
@click.argument("name")
@_why
@_registry
@_workspace
@_guarded
def models_rollback(name: str, why: str, tracking_uri: str | None, workspace: Path | None) -> None:
    """Make `previous` the champion of the model NAME again."""
    from pipelines.models_command import registry_uri, rollback

    rollback(registry_uri(tracking_uri, workspace), name, why)


if __name__ == "__main__":
    main()
