"""The part of the `switchyard` command that has to do with a model in use: serve, predict, deploy, drift."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from switchyard.pipelines.commands.options import guarded, json_option, workspace_option

registry_option = click.option("--tracking-uri", metavar="URI", help="MLflow server or database.  [default: the workspace's]")

trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Take a MODEL that no registered digest vouches for: loading it can run what is in it (docs/security.md).",
)


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
@click.option(
    "--allowed-hosts",
    multiple=True,
    metavar="NAMES",
    help="Names by which clients call the server, separated by commas; * is any.  [default: on loopback localhost and its "
    "addresses, else any]",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1),
    help="Open connections; more get 503.  [default: 1024, less where the system allows fewer open files]",
)
@click.option(
    "--idle-timeout", default=5, show_default=True, type=click.IntRange(1), help="Seconds until an unused connection is closed."
)
@click.option("--tls-cert", type=click.Path(path_type=Path, dir_okay=False), help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path, dir_okay=False), help="Its key, PEM.")
@click.option("--access-log", default="-", show_default=True, metavar="FILE", help="One JSON object a request; off: none.")
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
    help="Requests that are logged.",
)
@click.option("--redact", multiple=True, metavar="COLUMN", help="Column that is never logged; may be repeated.")
@click.option("--digest", metavar="SHA256", help="Of a folder's or URI's manifest.json: instead of --trust.")
@trust_option
@registry_option
@workspace_option
@guarded
def serve(model: str, tracking_uri: str | None, workspace: Path | None, **options: Any) -> None:
    """Serve MODEL over HTTP: Open Inference Protocol v2, and MLflow's /invocations.

    MODEL is NAME@ALIAS (followed: a promotion swaps the model), NAME@VERSION, a folder, or a URI that MLflow downloads. A
    version's files must be those that were registered; a folder or URI needs --trust or --digest.

    \b
    switchyard serve breast_cancer@champion --port 8080
    switchyard serve breast_cancer@champion --canary 10
    """  # noqa: D301 (click wants the character)
    from switchyard.pipelines.commands.serve import serve_model

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
    "--missing-value",
    "missing_values",
    multiple=True,
    metavar="TEXT",
    help="Text that means missing, besides those of the training data; may be repeated.",
)
@click.option(
    "--max-bad-rows", type=click.IntRange(0), help="End when more rows cannot be predicted.  [default: any number is fine]"
)
@click.option(
    "--beam-arg", "beam_arguments", multiple=True, metavar="ARG", help="For Beam, such as --beam-arg=--runner=FlinkRunner."
)
@click.option("--fresh", is_flag=True, help="Begin anew instead of going on behind an earlier try.")
@trust_option
@registry_option
@workspace_option
@guarded
def predict(model: str, tracking_uri: str | None, workspace: Path | None, **options: Any) -> None:
    """Predict the rows of files: INPUT is a file, a glob or a URI; MODEL as for serve.

    The output has the input's columns and rows, in order, and the predictions beside them. Rows that do not fit the model keep
    their place without a prediction, and OUTPUT.bad.jsonl says why. What an earlier try has done is not done again.

    \b
    switchyard predict breast_cancer@champion rows.csv -o scores.parquet
    """  # noqa: D301 (click wants the character)
    from switchyard.pipelines.terminal.output import quiet

    with quiet():  # what TensorFlow says of devices
        from switchyard.pipelines.commands.predict import PredictOptions
        from switchyard.pipelines.commands.predict import predict as predict_rows

    predict_rows(model, tracking_uri, workspace, PredictOptions(**options))


@click.command()
@click.argument("model")
@click.option("--target", required=True, type=click.Choice(["kserve", "tf-serving"]), help="Where it is to be served.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write to.")
@click.option("--apply", is_flag=True, help="kserve: kubectl apply the manifests, and wait until the version serves.")
@click.option(
    "--canary",
    type=click.IntRange(0, 100),
    metavar="PERCENT",
    help="kserve: requests that this version gets; the one before gets the others.",
)
@click.option("--name", metavar="NAME", help="kserve: of the InferenceService.  [default: the model's]")
@click.option("--namespace", default="serving", show_default=True, help="kserve: see infra/serving.")
@click.option("--image", metavar="IMAGE", help="kserve: made by make image.  [default: switchyard:VERSION]")
@click.option("--service-account", default="model-reader", show_default=True, help="kserve: may read the object store.")
@click.option(
    "--cluster-tracking-uri", metavar="URI", help="kserve: MLflow's address inside of the cluster, where no object store is."
)
@click.option("--cpu", metavar="QUANTITY", help="kserve: of a replica.  [default: 2]")
@click.option("--memory", metavar="QUANTITY", help="kserve: of a replica.  [default: 4Gi]")
@click.option("--accelerator", metavar="NAME", help="kserve: gpu, gpu:2, amd-gpu, or vendor/name:count.")
@click.option("--min-replicas", default=1, show_default=True, type=click.IntRange(0), help="kserve: 0 needs Knative.")
@click.option("--max-replicas", default=3, show_default=True, type=click.IntRange(1), help="kserve.")
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    help="kserve: requests of a replica before another is started; needs Knative.  [default: 32 there]",
)
@click.option(
    "--mode",
    type=click.Choice(["standard", "knative"]),
    help="kserve: its deployment mode.  [default: what kubectl reads, where it matters]",
)
@click.option("--token-secret", metavar="NAME/KEY", help="kserve: secret with the token that clients must send.")
@click.option("--secret-env", multiple=True, metavar="VARIABLE=NAME/KEY", help="kserve: variable from a secret; may be repeated.")
@trust_option
@registry_option
@workspace_option
@guarded
def deploy(model: str, target: str, output: Path, tracking_uri: str | None, workspace: Path | None, **options: Any) -> None:
    """Deploy MODEL: write what KServe or TensorFlow Serving needs.

    kserve: an InferenceService that runs switchyard serve, with MODEL's version of now. tf-serving: OUTPUT/NAME/VERSION, a
    SavedModel with raw features in (TensorFlow models alone).

    \b
    switchyard deploy breast_cancer@champion --target kserve -o manifests/
    switchyard deploy breast_cancer@challenger --target kserve -o manifests/ --canary 10 --apply
    switchyard deploy breast_cancer@champion --target tf-serving -o models/
    """  # noqa: D301 (click wants the character)
    from switchyard.pipelines.commands.deploy import deploy_kserve, deploy_tensorflow_serving
    from switchyard.pipelines.terminal.output import quiet

    if target == "kserve":
        deploy_kserve(model, tracking_uri, workspace, output, options)
        return
    with quiet():  # what TensorFlow says of devices
        deploy_tensorflow_serving(model, tracking_uri, workspace, output, trust=options["trust"])


@click.command()
@click.argument("model")
@click.argument("requests", nargs=-1, required=True, metavar="REQUESTS...")
@click.option("--warn", default=0.1, show_default=True, type=click.FloatRange(0, 1), help="Distance that is worth a word.")
@click.option("--fail", default=0.5, show_default=True, type=click.FloatRange(0, 1), help="Distance that ends with exit code 3.")
@trust_option
@json_option
@registry_option
@workspace_option
@guarded
def drift(
    model: str,
    requests: tuple[str, ...],
    warn: float,
    fail: float,
    trust: bool,
    as_json: bool,
    tracking_uri: str | None,
    workspace: Path | None,
) -> None:
    """Compare requests in service with what MODEL was trained on; a model of the registry gets a report in MLflow.

    REQUESTS are files or globs of raw rows: what serve --request-log wrote, or any CSV, Parquet, JSON Lines or TFRecord.

    \b
    switchyard drift breast_cancer@champion 'requests/*.parquet'
    """  # noqa: D301 (click wants the character)
    from switchyard.pipelines.terminal.output import quiet

    with quiet():  # what TensorFlow says of devices
        from switchyard.pipelines.commands.drift import drift as compare

    sys.exit(compare(model, tracking_uri, workspace, requests, (warn, fail), as_json=as_json, trust=trust))
