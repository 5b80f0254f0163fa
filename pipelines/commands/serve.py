"""`switchyard serve`: serves a model over HTTP and gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from switchyard.pipelines.commands.options import (
    handle_errors,
    registry_option,
    trust_option,
    verify_option,
    workspace_option,
)


@click.command("serve")
@click.argument("model")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 accepts connections from any host."
)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 selects a free one.")
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    help="Port of the gRPC service, on the same host; 0 selects a free one.  [default: no gRPC]",
)
@click.option("--name", metavar="NAME", help="The model's name in URLs.  [default: its name in the registry]")
@click.option("--poll", default=10.0, show_default=True, type=click.FloatRange(0.1), help="Seconds between registry polls.")
@click.option(
    "--canary",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    metavar="PERCENT",
    help="Share of requests that the challenger answers, in percent.",
)
@click.option("--canary-alias", default="challenger", show_default=True, metavar="ALIAS", help="Alias of the canary's version.")
@click.option(
    "--max-body", default=16, show_default=True, type=click.IntRange(1, 1024), metavar="MIB", help="Largest request body, in MiB."
)
@click.option(
    "--max-rows", default=10_000, show_default=True, type=click.IntRange(1), help="Largest number of rows in a request."
)
@click.option("--batch-rows", default=2048, show_default=True, type=click.IntRange(1), help="Largest batch, in rows.")
@click.option(
    "--queue", default=256, show_default=True, type=click.IntRange(1), help="Longest queue of requests; further ones get 503."
)
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Timeout of a request, in seconds.")
@click.option(
    "--drain", default=0.0, show_default=True, type=click.FloatRange(0), help="Seconds to report not-ready before shutdown."
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the token that clients must send (Authorization: Bearer ...); or SWITCHYARD_SERVE_TOKEN.",
)
@click.option(
    "--allowed-hosts",
    multiple=True,
    metavar="NAMES",
    help="Host names that clients may use, separated by commas; * accepts any.  [default: on loopback localhost and its "
    "addresses, else any]",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1),
    help="Open connections; further ones get 503.  [default: 1024, or fewer if the system limits open files]",
)
@click.option(
    "--idle-timeout", default=5, show_default=True, type=click.IntRange(1), help="Seconds until an idle connection is closed."
)
@click.option("--tls-cert", type=click.Path(path_type=Path, dir_okay=False), help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path, dir_okay=False), help="Private key of the certificate, PEM.")
@click.option(
    "--access-log", default="-", show_default=True, metavar="FILE", help="One JSON object per request; off disables it."
)
@click.option(
    "--request-log",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for a sample of requests and answers, Parquet; see switchyard drift.  [default: none]",
)
@click.option(
    "--sample",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0, 100, min_open=True),
    metavar="PERCENT",
    help="Share of requests to log, in percent.",
)
@click.option("--redact", multiple=True, metavar="COLUMN", help="Column of the model that is never logged; may be repeated.")
@click.option("--digest", metavar="SHA256", help="Digest of manifest.json in a folder or URI, instead of --trust.")
@trust_option
@verify_option
@registry_option
@workspace_option
@handle_errors
def command(model: str, tracking_uri: str | None, workspace: Path | None, **options: Any) -> None:
    """Serve MODEL: Open Inference Protocol v2 over HTTP and, with --grpc-port, gRPC; MLflow's /invocations.

    MODEL is NAME@ALIAS (followed: a promotion swaps the model), NAME@VERSION, a folder, or a URI that MLflow downloads. A
    version's files must be those that were registered; a folder or URI needs --trust, --digest or --verify.

    \b
    switchyard serve breast_cancer@champion --port 8080
    switchyard serve breast_cancer@champion --canary 10
    """  # noqa: D301 (click requires the character)
    from switchyard.pipelines.api.serve import serve

    log = None if options["access_log"] == "off" else options["access_log"]
    serve(model, **{**options, "access_log": log}, tracking_uri=tracking_uri, workspace=workspace, progress=True)
