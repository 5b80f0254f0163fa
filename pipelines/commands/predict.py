"""`switchyard predict`: writes predictions for files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from switchyard.components.process.temporary import contain_temporary_files
from switchyard.pipelines.commands.options import (
    handle_errors,
    registry_option,
    trust_option,
    verify_option,
    workspace_option,
)


@click.command("predict")
@click.argument("model")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File: .csv, .tsv, .parquet, .jsonl or .tfrecord.",
)
@click.option(
    "--format",
    "input_format",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "csv", "parquet", "jsonl", "tfrecord"]),
    help="Format of the input.",
)
@click.option(
    "--missing-value",
    "missing_values",
    multiple=True,
    metavar="TEXT",
    help="Additional text that means missing; may be repeated.",
)
@click.option("--max-bad-rows", type=click.IntRange(0), help="Fail if more rows cannot be predicted.  [default: no limit]")
@click.option(
    "--beam-arg",
    "beam_arguments",
    multiple=True,
    metavar="ARG",
    help="Option for Beam, such as --beam-arg=--runner=FlinkRunner; may be repeated.",
)
@click.option("--fresh", is_flag=True, help="Start over instead of resuming an earlier run.")
@trust_option
@verify_option
@registry_option
@workspace_option
@handle_errors
def command(model: str, inputs: tuple[str, ...], tracking_uri: str | None, workspace: Path | None, **options: Any) -> None:
    """Predict the rows of files: INPUT is a file, a glob or a URI; MODEL as for serve.

    The output has the input's columns and rows, in order, and the predictions beside them. Rows that do not fit the model keep
    their place without a prediction, and OUTPUT.bad.jsonl has the reasons. An interrupted run is resumed.

    \b
    switchyard predict breast_cancer@champion rows.csv -o scores.parquet
    """  # noqa: D301 (click requires the character)
    from switchyard.pipelines.api.predict import predict

    with contain_temporary_files():  # Beam removes none of its own
        done = predict(model, inputs, tracking_uri=tracking_uri, workspace=workspace, progress=True, **options)
    version = f" (version {done.version})" if done.version else ""
    click.echo(f"{done.rows:,} rows in {done.output}, predicted by {model}{version}")
    if done.bad_rows:
        click.echo(f"{done.bad_rows:,} rows have no prediction; {done.reasons} says why", err=True)
