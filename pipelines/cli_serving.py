"""The part of the `switchyard` command that has to do with a model in use: serve, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipelines.cli_options import guarded, workspace_option

registry_option = click.option("--tracking-uri", metavar="URI", help="MLflow server or database.  [default: the workspace's]")


@click.command()
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is everybody.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes one that is free.")
@click.option("--name", metavar="NAME", help="The model's name in URLs.  [default: its name in the registry]")
@click.option("--poll", default=10.0, show_default=True, type=click.FloatRange(0.1), help="Seconds between looks at the alias.")
@click.option(
    "--canary",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    metavar="PERCENT",
    help="Requests that the challenger answers.",
)
@click.option("--canary-alias", default="challenger", show_default=True, metavar="ALIAS", help="Whose version is the canary.")
@click.option("--max-body", default=16, show_default=True, type=click.IntRange(1, 1024), metavar="MIB", help="Size of a request.")
@click.option("--max-rows", default=10_000, show_default=True, type=click.IntRange(1), help="Rows of a request.")
@click.option("--batch-rows", default=1024, show_default=True, type=click.IntRange(1), help="Rows that the model gets at once.")
@click.option("--queue", default=256, show_default=True, type=click.IntRange(1), help="Requests that may wait; more get 503.")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Seconds that a request may take.")
@click.option(
    "--drain", default=0.0, show_default=True, type=click.FloatRange(0), help="Seconds of not being ready before the end."
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the token that clients must send (Authorization: Bearer ...); or SWITCHYARD_SERVE_TOKEN.",
)
@click.option("--tls-cert", type=click.Path(path_type=Path, dir_okay=False), help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path, dir_okay=False), help="Its key, PEM.")
@click.option("--access-log", default="-", show_default=True, metavar="FILE", help="One JSON object a request; off: none.")
@registry_option
@workspace_option
@guarded
def serve(model: str, tracking_uri: str | None, workspace: Path | None, **options: Any) -> None:
    r"""Serve MODEL over HTTP: Open Inference Protocol v2, and MLflow's /invocations.

    MODEL is NAME@ALIAS (followed: a promotion swaps the model), NAME@VERSION, a folder, or a URI that MLflow downloads.

    \b
    switchyard serve breast_cancer@champion --port 8080
    switchyard serve breast_cancer@champion --canary 10
    """
    from pipelines.serve_command import serve_model

    serve_model(model, tracking_uri, workspace, options)


@click.command()
@click.argument("model")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File: .csv, .parquet, .jsonl or .tfrecord.",
)
@click.option(
    "--format",
    "input_format",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "csv", "parquet", "jsonl", "tfrecord"]),
    help="Of the input.",
)
@click.option(
    "--missing-value", "missing_values", multiple=True, metavar="TEXT", help="Text in a CSV that means missing; may be repeated."
)
@click.option(
    "--max-bad-rows", type=click.IntRange(0), help="End when more rows cannot be predicted.  [default: any number is fine]"
)
@click.option(
    "--beam-arg", "beam_arguments", multiple=True, metavar="ARG", help="For Beam, such as --beam-arg=--runner=FlinkRunner."
)
@click.option("--fresh", is_flag=True, help="Begin anew instead of going on behind an earlier try.")
@registry_option
@workspace_option
@guarded
def predict(model: str, tracking_uri: str | None, workspace: Path | None, **options: Any) -> None:
    r"""Predict the rows of files: INPUT is a file, a glob or a URI; MODEL as for serve.

    The output has the input's columns and rows, in order, and the predictions beside them. Rows that do not fit the model keep
    their place without a prediction, and OUTPUT.bad.jsonl says why. What an earlier try has done is not done again.

    \b
    switchyard predict breast_cancer@champion rows.csv -o scores.parquet
    """
    from pipelines.runners.quiet import quiet

    with quiet():  # what TensorFlow says of devices
        from pipelines.predict_command import PredictOptions
        from pipelines.predict_command import predict as predict_rows

    predict_rows(model, tracking_uri, workspace, PredictOptions(**options))
