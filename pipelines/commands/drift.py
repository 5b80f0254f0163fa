"""`switchyard drift`: compares served requests with the training data and reports to MLflow."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from switchyard.components.errors import EXIT_DATA_GATE, EXIT_DONE, UserError, first_line
from switchyard.components.text.redaction import mask
from switchyard.components.text.visible import in_a_line, visible
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.keys import key_of
from switchyard.pipelines.commands.options import (
    handle_errors,
    json_option,
    registry_option,
    trust_option,
    verify_option,
    workspace_option,
)
from switchyard.pipelines.terminal.output import quiet, table_console

if TYPE_CHECKING:
    from switchyard.components.bundle.source import ModelRef
    from switchyard.components.serving.drift_report import ServedDrift

_SHOWN = 20


@click.command("drift")
@click.argument("model")
@click.argument("requests", nargs=-1, required=True, metavar="REQUESTS...")
@click.option(
    "--warn", default=0.1, show_default=True, type=click.FloatRange(0, 1), help="Distance above which a feature is reported."
)
@click.option(
    "--fail", default=0.5, show_default=True, type=click.FloatRange(0, 1), help="Distance above which the exit code is 3."
)
@trust_option
@verify_option
@json_option
@registry_option
@workspace_option
@handle_errors
def command(
    model: str,
    requests: tuple[str, ...],
    warn: float,
    fail: float,
    trust: bool,
    verify: Path | None,
    as_json: bool,
    tracking_uri: str | None,
    workspace: Path | None,
) -> None:
    """Compare served requests with MODEL's training data; a registered model gets a report in MLflow.

    REQUESTS are files or globs of raw rows: from serve --request-log, or any CSV, Parquet, JSON Lines or TFRecord.

    \b
    switchyard drift breast_cancer@champion 'requests/*.parquet'
    """  # noqa: D301 (click requires the character)
    sys.exit(drift(model, tracking_uri, workspace, requests, (warn, fail), as_json=as_json, trust=trust, verify=verify))


def drift(
    model: str,
    tracking_uri: str | None,
    workspace: Path | None,
    requests: Sequence[str],
    limits: tuple[float, float],
    *,
    as_json: bool,
    trust: bool = False,
    verify: Path | None = None,
) -> int:
    """Prints and records the distances; returns the exit code.

    Raises:
        UserError: the model or the requests cannot be read, or the model's signature does not verify.
    """
    with quiet():  # hides TensorFlow's device messages
        from switchyard.components.serving.drift_report import served_drift
    from switchyard.pipelines.api.model_argument import open_model

    with open_model(model, tracking_uri, workspace, trust=trust, verify=verify) as opened, quiet():
        found = served_drift(opened.folder, requests, warn=limits[0], fail=limits[1])
    run_id = _recorded(opened.ref, opened.version, found) if opened.ref else None
    if as_json:
        values = [{**dataclasses.asdict(d), "largest": d.largest} for d in found.distances]
        findings = [dataclasses.asdict(f) for f in found.findings]
        click.echo(
            json.dumps(
                {
                    "rows": found.rows,
                    "distances": values,
                    "findings": findings,
                    "verdict": found.verdict(),
                    "mlflow_run_id": run_id,
                }
            )
        )
    else:
        _print(found, run_id)
    return EXIT_DATA_GATE if any(f.action == "fail" for f in found.findings) else EXIT_DONE


def _recorded(source: ModelRef, version: str, found: ServedDrift) -> str | None:
    """Records the result; None, with a warning, if MLflow does not take it, which changes no distance."""
    from switchyard.components.tracking.mlflow_errors import is_denial, is_refusal, refusal

    try:
        return _record(source, version, found)
    except UserError:
        raise
    except Exception as error:  # MLflow's stores raise many types of errors
        why = refusal(source.uri, error) if is_denial(error) or is_refusal(error) else f"MLflow failed: {first_line(error)}"
        click.echo(f"warning: not recorded: {visible(mask(why))}", err=True)
        return None


def _record(source: ModelRef, version: str, found: ServedDrift) -> str:
    """Records the result as a run in the experiment of the version's training."""
    from switchyard.components.serving.drift_report import drift_html

    client = tracking.client(source.uri)
    made_by = client.get_model_version(source.name, version).run_id
    experiment = (
        client.get_run(made_by).info.experiment_id if made_by else tracking.ensure_experiment(source.uri, source.name, None)
    )
    title = f"drift {source.name} {version}"
    tags = {"switchyard.kind": "drift", "switchyard.model": source.name, "switchyard.model_version": version}
    page = drift_html(f"Requests of {source.name} version {version}", found)
    run_id = tracking.create_run(source.uri, experiment, title, tags)
    run = tracking.Run(source.uri, run_id)
    named = {f"drift.{key_of(d.feature)}": d.largest for d in found.distances}
    largest = max((d.largest for d in found.distances if d.judged), default=0.0)
    changed = {"rows": float(found.rows), "largest_drift": largest, "features_changed": float(len(found.findings))}
    try:
        run.metrics({**changed, **named})
        run.text(page, "drift/drift.html")
    except BaseException:
        run.end("KILLED")
        raise
    run.end("FINISHED")
    return run_id


def _print(found: ServedDrift, run_id: str | None) -> None:
    out = Table(
        title=f"{found.rows:,} rows of requests against the training data", title_justify="left", box=None, pad_edge=False
    )
    for column in ("feature", "distance", "chance", ""):
        out.add_column(column)
    actions = {f.feature: f.action for f in found.findings}
    for distance in found.distances[:_SHOWN]:
        note = actions.get(distance.feature, distance.reason)
        out.add_row(distance.feature, f"{distance.largest:.3f}", f"{distance.noise:.3f}", note)
    table_console().print(out)
    if len(found.distances) > _SHOWN:
        click.echo(f"and {len(found.distances) - _SHOWN} more, with smaller distances")
    click.echo(found.verdict())
    if found.missing:
        click.echo(f"not in the requests: {in_a_line(found.missing)}")
    if run_id:
        click.echo(f"MLflow run {run_id}: drift/drift.html")
