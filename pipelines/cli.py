"""The `switchyard` command: parses, calls, prints. Heavy imports happen inside the commands: `--help` stays fast."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from switchyard.components.errors import UserError
from switchyard.components.process.account import ensure_account
from switchyard.components.process.interpreter import protect_children
from switchyard.components.progress import no_progress_bars
from switchyard.components.text.redaction import install
from switchyard.pipelines.commands.cli_kubeflow import compile_, doctor, runs, submit
from switchyard.pipelines.commands.cli_serving import deploy, drift, predict, registry_option, serve
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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EXIT_CODES)
@click.version_option(package_name="switchyard", prog_name="switchyard")
def main() -> None:
    """One ML pipeline: ingest, validate, transform, train, evaluate, register.

    With a TensorFlow or a PyTorch trainer, tracked in MLflow.
    """
    install()


@main.command(epilog=EXIT_CODES)
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@trainers_option
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override any value of the YAML; may be repeated.")
@click.option("--data", metavar="PATH", multiple=True, help="Without a YAML: file, glob or URI of the data; may be repeated.")
@click.option("--label", metavar="COLUMN", help="Without a YAML: the column to predict.")
@click.option(
    "--runner", default="local", show_default=True, metavar="NAME", help="local, kfp-local or kfp-docker; a cluster: see submit."
)
@click.option(
    "--even-if-unchanged", is_flag=True, help="Evaluate and compare again also when nothing has changed since the last run."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of stdout.")
@workspace_option
@guarded
def run(
    pipeline: Path | None,
    trainers: tuple[str, ...],
    overrides: tuple[str, ...],
    data: tuple[str, ...],
    label: str | None,
    runner: str,
    even_if_unchanged: bool,
    as_json: bool,
    workspace: Path | None,
) -> None:
    """Run a pipeline: PIPELINE is its YAML, or give --data and --label.

    \b
    switchyard run pipeline.yaml
    switchyard run pipeline.yaml --trainer pytorch
    switchyard run pipeline.yaml --trainer tensorflow --trainer pytorch
    switchyard run pipeline.yaml --set trainer.hyperparameters.learning_rate=0.01
    switchyard run --data rides.csv --label big_tipper
    """  # noqa: D301 (click wants the character)
    from switchyard.pipelines.commands.run import run_pipeline

    document = _document(pipeline, data, label)
    wanted = chosen(overrides, trainers)
    sys.exit(run_pipeline(pipeline, document, wanted, runner, workspace, as_json=as_json, even_if_unchanged=even_if_unchanged))


def _document(pipeline: Path | None, data: tuple[str, ...], label: str | None) -> dict[str, Any]:
    if pipeline is not None:
        if data or label:
            raise UserError(
                "--data and --label describe a pipeline without a YAML; with one, use --set data.path=... or label=..."
            )
        return {}
    if not data or not label:
        raise UserError("give a pipeline.yaml, or both --data PATH and --label COLUMN. See switchyard run --help.")
    from switchyard.pipelines.config.data_name import name_of

    return {"name": name_of(data), "data": {"path": list(data)}, "label": label}


@main.command()
@workspace_option
@guarded
def demo(workspace: Path | None) -> None:
    """Run the breast_cancer example with both trainers and compare them."""
    from switchyard.pipelines.commands.demo import run_demo

    sys.exit(run_demo(workspace))


@main.command()
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@workspace_option
@guarded
def ui(pipeline: Path | None, host: str, port: int, workspace: Path | None) -> None:
    """Open MLflow's UI on a workspace's runs (that of PIPELINE, or the only one below this folder)."""
    from switchyard.pipelines.commands.ui import serve_ui
    from switchyard.pipelines.workspace import Workspace, find_workspace

    serve_ui(Workspace(find_workspace(workspace, pipeline)), host, port)


@main.command()
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@workspace_option
@guarded
def upload(pipeline: Path | None, workspace: Path | None) -> None:
    """Send MLflow what could not be sent while it was away."""
    from switchyard.pipelines.runners.tracking.upload import upload as send
    from switchyard.pipelines.workspace import Workspace, find_workspace

    place = Workspace(find_workspace(workspace, pipeline))
    place.contain_libraries()
    sent = send(place, click.echo)
    click.echo(f"{sent} runs sent" if sent else "nothing to send")


@main.group()
def schema() -> None:
    """Keep a reviewed schema: infer it, show it, compare it with the data, accept what changed."""


@schema.command("infer")
@pipeline_argument
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: schema.pbtxt beside the YAML]")
@overrides_option
@workspace_option
@guarded
def schema_infer(pipeline: Path, output: Path | None, overrides: tuple[str, ...], workspace: Path | None) -> None:
    """Write the schema of PIPELINE's training split, for you to review."""
    from switchyard.pipelines.commands.schema import infer

    infer(pipeline, overrides, workspace, output)


@schema.command("show")
@click.argument("source", type=click.Path(path_type=Path))
@guarded
def schema_show(source: Path) -> None:
    """Print a schema: SOURCE is a schema.pbtxt, or a pipeline.yaml that names one."""
    from switchyard.pipelines.commands.schema import show

    show(source)


@schema.command("diff")
@pipeline_argument
@overrides_option
@workspace_option
@guarded
def schema_diff(pipeline: Path, overrides: tuple[str, ...], workspace: Path | None) -> None:
    """Print what PIPELINE's data would change in its reviewed schema; exit code 1 when it would change something."""
    from switchyard.pipelines.commands.schema import diff

    sys.exit(diff(pipeline, overrides, workspace))


@schema.command("accept")
@pipeline_argument
@click.option("--feature", "features", multiple=True, metavar="NAME", help="Only this feature; may be repeated.")
@overrides_option
@workspace_option
@guarded
def schema_accept(pipeline: Path, features: tuple[str, ...], overrides: tuple[str, ...], workspace: Path | None) -> None:
    """Change PIPELINE's reviewed schema so that its data fits."""
    from switchyard.pipelines.commands.schema import accept

    accept(pipeline, overrides, workspace, features)


_why = click.option("--why", required=True, metavar="TEXT", help="The reason, kept in the registry.")


@main.group()
def models() -> None:
    """See, compare, promote and roll back registered models."""


@models.command("list")
@click.argument("name", required=False)
@json_option
@registry_option
@workspace_option
@guarded
def models_list(name: str | None, as_json: bool, tracking_uri: str | None, workspace: Path | None) -> None:
    """List versions of the model NAME and every move of its champion; without NAME all models."""
    from switchyard.pipelines.commands.models import registry_uri, show

    show(registry_uri(tracking_uri, workspace), name, as_json=as_json)


@models.command("compare")
@click.argument("name")
@click.argument("versions", nargs=2, metavar="VERSION VERSION")
@click.option("--data", type=click.Path(path_type=Path), help="Evaluate both on the rows of this file; it holds the label.")
@json_option
@registry_option
@workspace_option
@guarded
def models_compare(
    name: str, versions: tuple[str, str], data: Path | None, as_json: bool, tracking_uri: str | None, workspace: Path | None
) -> None:
    """Compare two versions (numbers or aliases) of the model NAME."""
    from switchyard.pipelines.commands.models import compare, registry_uri

    compare(registry_uri(tracking_uri, workspace), name, versions, data, as_json=as_json)


@models.command("promote")
@click.argument("name")
@click.argument("version")
@_why
@click.option("--force", is_flag=True, help="Also a version that was not blessed.")
@registry_option
@workspace_option
@guarded
def models_promote(name: str, version: str, why: str, force: bool, tracking_uri: str | None, workspace: Path | None) -> None:
    """Make VERSION (a number or an alias) of the model NAME its champion; the one before becomes `previous`."""
    from switchyard.pipelines.commands.models import promote, registry_uri

    promote(registry_uri(tracking_uri, workspace), name, version, why, force=force)


@models.command("rollback")
@click.argument("name")
@_why
@registry_option
@workspace_option
@guarded
def models_rollback(name: str, why: str, tracking_uri: str | None, workspace: Path | None) -> None:
    """Make `previous` the champion of the model NAME again."""
    from switchyard.pipelines.commands.models import registry_uri, rollback

    rollback(registry_uri(tracking_uri, workspace), name, why)


for _command in (compile_, submit, runs, doctor, serve, predict, deploy, drift):
    main.add_command(_command)


def entry() -> None:
    """The console script. It does not take apart what TensorFlow and TFX have loaded, which would take seconds of every run."""
    code: Any = 0
    ensure_account()
    if not sys.stderr.isatty():
        no_progress_bars()
    protect_children()
    try:
        main()
    except SystemExit as error:
        code = error.code
    if isinstance(code, str):
        click.echo(code, err=True)
    atexit._run_exitfuncs()  # what was to be done at the end is done
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    entry()
