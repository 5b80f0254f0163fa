"""`switchyard run`: a pipeline on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from switchyard.components.errors import UserError
from switchyard.pipelines.commands.options import (
    EXIT_CODES,
    handle_errors,
    trainers_option,
    with_trainer_overrides,
    workspace_option,
)


@click.command("run", epilog=EXIT_CODES)
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@trainers_option
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override any value of the YAML; may be repeated.")
@click.option("--data", metavar="PATH", multiple=True, help="Without a YAML: file, glob or URI of the data; may be repeated.")
@click.option("--label", metavar="COLUMN", help="Without a YAML: the column to predict.")
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
    """Run a pipeline: PIPELINE is its YAML, or give --data and --label.

    \b
    switchyard run pipeline.yaml
    switchyard run pipeline.yaml --trainer pytorch
    switchyard run pipeline.yaml --trainer tensorflow --trainer pytorch
    switchyard run pipeline.yaml --set trainer.hyperparameters.learning_rate=0.01
    switchyard run --data rides.csv --label big_tipper
    """  # noqa: D301 (click wants the character)
    from switchyard.pipelines.api.run import run_pipeline

    document = _document(pipeline, data, label)
    wanted = with_trainer_overrides(overrides, trainers)
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
