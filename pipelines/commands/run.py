"""`switchyard run`: runs a pipeline on this machine."""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from switchyard.components.errors import UserError
from switchyard.components.metrics import HEADLINE
from switchyard.pipelines.commands.options import (
    EXIT_CODES,
    handle_errors,
    trainers_option,
    workspace_option,
)
from switchyard.pipelines.project import PIPELINE
from switchyard.pipelines.terminal.console import PlainTextConsole
from switchyard.pipelines.workspace import beside

if TYPE_CHECKING:
    from switchyard.pipelines.runners.contract import RunResult


@click.command("run", epilog=EXIT_CODES)
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@trainers_option
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override any value of the YAML; may be repeated.")
@click.option(
    "--data",
    metavar="PATH",
    multiple=True,
    help="Without a YAML: file, folder, glob or URI of the data; may be repeated. A folder of pictures or texts has a folder per "
    "class.",
)
@click.option(
    "--label",
    metavar="COLUMN",
    help="Without a YAML: the column to predict, or what the classes of pictures or texts are called.",
)
@click.option(
    "--runner",
    default="local",
    show_default=True,
    metavar="NAME",
    help="local, kfp-local or kfp-docker; for a cluster see submit.",
)
@click.option("--even-if-unchanged", is_flag=True, help="Evaluate and compare even if nothing has changed since the last run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line of stdout.")
@workspace_option
@handle_errors
def command(
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
    """Run a pipeline: PIPELINE is its YAML, by default pipeline.yaml, or give --data and --label.

    \b
    switchyard run
    switchyard run pipeline.yaml
    switchyard run pipeline.yaml --trainer pytorch
    switchyard run pipeline.yaml --trainer tensorflow --trainer pytorch
    switchyard run pipeline.yaml --set trainer.hyperparameters.learning_rate=0.01
    switchyard run --data rides.csv --label big_tipper
    switchyard run --data pets/ --label animal   # pets/cats/1.png, pets/dogs/2.png
    """  # noqa: D301 (click requires the character)
    from switchyard.pipelines.api.run import run
    from switchyard.pipelines.runners.this_machine import stop_on_sigterm

    stop_on_sigterm()
    if pipeline is None and not data and not label and Path(PIPELINE).is_file():
        pipeline = Path(PIPELINE)
    result = run(
        _pipeline(pipeline, data, label, workspace),
        overrides=overrides,
        trainer=trainers,
        runner=runner,
        workspace=workspace,
        even_if_unchanged=even_if_unchanged,
        check=False,
        progress=True,
    )
    if result.status != "cancelled":
        _print(result, workspace, pipeline, _console(sys.stderr if as_json else sys.stdout))
    if as_json:
        click.echo(json.dumps(to_json(result)))
    if result.status == "cancelled":
        raise KeyboardInterrupt
    sys.exit(result.exit_code)


def _pipeline(pipeline: Path | None, data: tuple[str, ...], label: str | None, workspace: Path | None) -> Path | dict[str, Any]:
    from switchyard.pipelines.api.class_folders import class_folders, in_workspace

    if pipeline is not None:
        if data or label:
            raise UserError(
                "--data and --label replace a pipeline's YAML, and one was given; use --set data.path=... or --set "
                "label=... instead"
            )
        return pipeline
    if not data or not label:
        raise UserError(
            "give a pipeline.yaml, which `switchyard init` writes, or both --data PATH and --label COLUMN (switchyard run --help)"
        )
    folders = class_folders(data, label, partial(in_workspace, workspace), lambda text: click.echo(text, err=True))
    return folders or {"data": {"path": list(data)}, "label": label}


def _console(file: TextIO) -> Console:
    return PlainTextConsole(file=file, highlight=False, width=None if file.isatty() else 160)


def to_json(result: RunResult) -> dict[str, Any]:
    """Returns the object that `--json` prints."""
    from switchyard.components.evaluation.results import with_blanks

    return {
        "pipeline": result.pipeline,
        "mlflow_run_id": result.mlflow_run_id,
        "mlflow_experiment_id": result.mlflow_experiment_id,
        "status": result.status,
        "trainer": result.trainer,
        "blessed": result.blessed,
        "model_version": result.model_version,
        "champion": result.champion,
        "models": _models(result),
        "positive_class": result.evaluation.positive_class if result.evaluation else None,
        "metrics": with_blanks(result.metrics, result.evaluation.task) if result.evaluation else {},
        "comparison": _comparison(result),
        "stages": {s: {"status": r.status, "seconds": r.seconds} for s, r in result.stages.items()},
        "unchanged_since": result.unchanged_since,
        "error": result.error,
    }


def _models(result: RunResult) -> dict[str, Any]:
    from switchyard.components.evaluation.results import with_blanks

    if result.evaluation is None:
        return {}
    return {
        name: {
            "role": m.role,
            "version": m.version,
            "metrics": with_blanks(m.metrics, result.evaluation.task),
            "passed": m.passed,
            "blessed": m.blessed,
            "failures": m.failures,
        }
        for name, m in result.evaluation.models.items()
    }


def _comparison(result: RunResult) -> dict[str, Any] | None:
    found = result.evaluation
    if found is None:
        return None
    return {
        "split": found.split,
        "rows": found.rows,
        "champion": found.champion,
        "compared_rows": found.compared_rows,
        "not_compared": found.not_compared or None,
        "champion_origin": found.champion_origin or None,
    }


def print_models(result: RunResult, out: Console) -> None:
    """Prints one row per model, the champion's last, and their comparison."""
    from switchyard.components.evaluation.results import CHAMPION, verdict_of

    evaluation = result.evaluation
    if evaluation is None:
        return
    table = Table(box=None, pad_edge=False)
    names = list(dict.fromkeys([evaluation.metric, *(n for n in HEADLINE if n in evaluation.metrics)]))
    for name in ("model", *names, f"{evaluation.metric}, 95 % interval", "verdict"):
        table.add_column(name)
    for name, model in evaluation.models.items():
        between = model.intervals.get(evaluation.metric)
        title = f"champion (version {model.version}, {model.framework})" if model.role == CHAMPION else name
        verdict = verdict_of(model)
        if name == evaluation.best and result.model_version:
            is_champion = result.model_version == result.champion
            verdict += f", {'champion' if is_champion else 'kept as'} version {result.model_version}"
        values = [f"{model.metrics[n]:.4f}" if n in model.metrics else "" for n in names]
        table.add_row(title, *values, f"{between[0]:.4f} to {between[1]:.4f}" if between else "", Text(verdict))
    out.print(table)
    for line in evaluation.lines():
        out.print(line, markup=False, soft_wrap=True)


def _print(result: RunResult, workspace: Path | None, pipeline: Path | None, out: Console) -> None:
    print_models(result, out)
    if result.note:
        out.print(f"registry: {result.note}", markup=False, soft_wrap=True)
    if result.error:
        out.print(f"[bold red]{'verdict' if result.status == 'not_blessed' else 'failed'}[/]: ", end="")
        out.print(result.error, markup=False, soft_wrap=True)
    if result.mlflow_run_id:
        root = (workspace or beside(pipeline)).resolve()
        where = (
            shlex.quote(str(pipeline))
            if pipeline is not None and root == beside(pipeline)
            else f"--workspace {shlex.quote(str(root))}"
        )
        out.print(f"MLflow run {result.mlflow_run_id}: switchyard ui {where}", markup=False, soft_wrap=True)
