"""`switchyard models`: lists and compares registered versions, shows the champion's history, and moves the alias."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from switchyard.components.errors import EXIT_DONE, EXIT_FAILED, ArgumentError, UserError
from switchyard.components.metrics import HEADLINE
from switchyard.components.text.visible import in_a_line, in_line
from switchyard.components.tracking import model_registry
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.model_registry import Move, Version
from switchyard.components.tracking.references import name_and_version, name_and_versions
from switchyard.pipelines.api.compare import OnSameRows, compare_on
from switchyard.pipelines.commands.options import (
    handle_errors,
    json_option,
    registry_option,
    workspace_option,
)
from switchyard.pipelines.terminal.output import quiet, table_console
from switchyard.pipelines.workspace import registry_uri

_version = click.argument("version", required=False)
_why = click.option("--why", required=True, metavar="TEXT", help="Reason; recorded in the registry.")


@click.group("models")
def command() -> None:
    """List, compare, promote and roll back registered models."""


@command.command("list")
@click.argument("name", required=False)
@json_option
@registry_option
@workspace_option
@handle_errors
def models_list(name: str | None, as_json: bool, tracking_uri: str | None, workspace: Path | None) -> None:
    """List versions of the model NAME and every move of its champion; without NAME all models."""
    show(registry_uri(tracking_uri, workspace), name, as_json=as_json)


@command.command("compare")
@click.argument("versions", nargs=-1, required=True, metavar="NAME VERSION VERSION")
@click.option("--data", type=click.Path(path_type=Path), help="Evaluate both on the rows of this file, which includes the label.")
@click.option(
    "--sample-weight",
    metavar="COLUMN",
    help="Column of --data to weigh its rows by, '' for none. [default: that of the versions]",
)
@click.option(
    "--metrics",
    "own",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True),
    metavar="FILE",
    help="Python file with metrics of your own, as evaluation.metrics, to measure on the rows of --data, too.",
)
@click.option(
    "--verify",
    "verify_by",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="KEY",
    help="PEM file with the public key, or certificate, that both versions' signatures must verify with; needs --data.",
)
@json_option
@registry_option
@workspace_option
@handle_errors
def models_compare(
    versions: tuple[str, ...],
    data: Path | None,
    sample_weight: str | None,
    own: Path | None,
    verify_by: Path | None,
    as_json: bool,
    tracking_uri: str | None,
    workspace: Path | None,
) -> None:
    """Compare two versions (numbers or aliases) of the model NAME, or NAME@VERSION and NAME@VERSION."""
    name, wanted = name_and_versions(versions)
    compare(registry_uri(tracking_uri, workspace), name, wanted, data, sample_weight, own, verify_by, as_json=as_json)


@command.command("promote")
@click.argument("name")
@_version
@_why
@click.option("--force", is_flag=True, help="Promote a version that was not blessed.")
@registry_option
@workspace_option
@handle_errors
def models_promote(
    name: str, version: str | None, why: str, force: bool, tracking_uri: str | None, workspace: Path | None
) -> None:
    """Make VERSION (a number or an alias) of NAME, or NAME@VERSION, its champion; the current one becomes `previous`."""
    name, version = name_and_version(name, version)
    promote(registry_uri(tracking_uri, workspace), name, version, why, force=force)


@command.command("rollback")
@click.argument("name")
@_why
@registry_option
@workspace_option
@handle_errors
def models_rollback(name: str, why: str, tracking_uri: str | None, workspace: Path | None) -> None:
    """Make `previous` the champion of the model NAME again."""
    rollback(registry_uri(tracking_uri, workspace), name, why)


@command.command("verify")
@click.argument("name")
@_version
@click.option(
    "--key",
    "verify_by",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="KEY",
    help="PEM file with the public key, or certificate, that its signature must verify with.",
)
@json_option
@registry_option
@workspace_option
@handle_errors
def models_verify(
    name: str, version: str | None, verify_by: Path | None, as_json: bool, tracking_uri: str | None, workspace: Path | None
) -> None:
    """Check VERSION (a number or an alias) of the model NAME, or NAME@VERSION, again; exit code 1 if something changed.

    Its files are compared with the registered digest, its training data, if still at hand, with the registered fingerprint, and
    its files with their signature, if a KEY is given; the code's commit with that of the run, and the packages and the image
    that trained it with those of this command. Files that cannot be reached are exit code 1, too.
    """
    name, version = name_and_version(name, version)
    sys.exit(verify(registry_uri(tracking_uri, workspace), name, version, verify_by, as_json=as_json))


def show(uri: str, name: str | None, *, as_json: bool) -> None:
    """Prints a model's versions and moves, or all models."""
    client = tracking.client(uri)
    names = [name] if name else sorted(m.name for m in client.search_registered_models())
    if not names:
        click.echo("no registered models yet; a run registers the first one")
    console = table_console()
    for each in names:
        versions, moves = model_registry.versions(client, each), model_registry.moves(client, each)
        if as_json:
            click.echo(json.dumps({"name": each, "versions": [asdict(v) for v in versions], "moves": [asdict(m) for m in moves]}))
            continue
        console.print(_versions_table(each, versions))
        if name:
            console.print(_moves_table(moves))


def compare(
    uri: str,
    name: str,
    wanted: Sequence[str],
    data: Path | None,
    sample_weight: str | None = None,
    own: Path | None = None,
    verify_by: Path | None = None,
    *,
    as_json: bool,
) -> None:
    """Prints two versions' recorded metrics side by side; with `data`, evaluates both on the same rows.

    Args:
        uri: MLflow's server or database.
        name: the registered model.
        wanted: numbers or aliases of two versions.
        data: file with rows and their labels.
        sample_weight: column to weigh the rows of `data` by; None: that of the versions; empty: all weigh the same.
        own: file with metrics of the user's own, to measure on the rows of `data`.
        verify_by: file with the public key or certificate that the signatures of both versions must verify with.
        as_json: whether to print JSON.
    """
    if sample_weight is not None and data is None:
        raise UserError("--sample-weight: without --data no rows are weighed; give --data FILE, or remove it")
    if own is not None and data is None:
        raise UserError("--metrics: without --data nothing is measured; give --data FILE, or remove it")
    if verify_by is not None:
        from switchyard.pipelines.api.model_argument import verifying_key

        if data is None:
            raise ArgumentError(
                "verify_by", "without --data no version is opened; give --data FILE, or check each by models verify --key"
            )
        verify_by = verifying_key(verify_by, "verify_by")
    client = tracking.client(uri)
    chosen = [find_version(client, name, w) for w in wanted]
    if len({v.version for v in chosen}) < len(chosen):
        others = [_title(v) for v in model_registry.versions(client, name) if v.version != chosen[0].version]
        raise UserError(
            f"{name}: {' and '.join(wanted)} are the same version, {_title(chosen[0])}: there is nothing to compare. "
            f"Other versions: {', '.join(others) or 'none yet'}."
        )
    if data is not None:
        click.echo(f"evaluating versions {' and '.join(v.version for v in chosen)} on {data}", err=True)
        with quiet():
            found = compare_on(uri, name, chosen, data, sample_weight, own, verify_by)
        _print_comparison(found, chosen, data, as_json=as_json)
        return
    if as_json:
        click.echo(json.dumps({"name": name, "versions": [asdict(v) for v in chosen]}))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("metric", *(_title(v) for v in chosen)):
        table.add_column(column)
    for metric in dict.fromkeys(m for v in chosen for m in v.metrics):
        table.add_row(metric, *(_number(v.metrics.get(metric)) for v in chosen))
    table_console().print(table)
    if len({v.data for v in chosen}) > 1:
        click.echo("They were evaluated on different data; --data FILE evaluates both on the same rows.")


def verify(uri: str, name: str, wanted: str, verify_by: Path | None = None, *, as_json: bool) -> int:
    """Prints the checks of a version, of its signature too if a key is given; returns the exit code."""
    from switchyard.components.bundle.verification import check_version
    from switchyard.pipelines.api.model_argument import verifying_key

    verify_by = verifying_key(verify_by, "verify_by")
    client = tracking.client(uri)
    version = find_version(client, name, wanted)
    with quiet():
        checks = check_version(client, uri, name, version.version, verify_by)
    if as_json:
        click.echo(json.dumps({"name": name, "version": version.version, "checks": [asdict(c) for c in checks]}))
    else:
        table = Table(title=f"{name} version {_title(version)}", title_justify="left", box=None, pad_edge=False)
        for column in ("what", "outcome", "found"):
            table.add_column(column)
        for check in checks:
            table.add_row(in_line(check.what), check.outcome, in_line(check.found))
        table_console().print(table)
    return EXIT_FAILED if any(c.outcome in ("changed", "unreachable") for c in checks) else EXIT_DONE


def find_version(client: Any, name: str, wanted: str) -> Version:
    """Returns a version by its number or alias.

    Raises:
        UserError: the version does not exist.
    """
    known = model_registry.versions(client, name)
    for version in known:
        if wanted == version.version or wanted in version.aliases:
            return version
    listed = ", ".join(_title(v) for v in known)
    raise UserError(f"{name} has no version or alias {wanted!r}. Versions: {listed}.")


def promote(uri: str, name: str, wanted: str, why: str, *, force: bool) -> None:
    """Promotes a version to champion."""
    client = tracking.client(uri)
    _report(name, model_registry.promote(client, name, find_version(client, name, wanted).version, why=why, force=force))


def rollback(uri: str, name: str, why: str) -> None:
    """Makes the previous version champion again."""
    _report(name, model_registry.rollback(tracking.client(uri), name, why=why))


def _report(name: str, move: Move) -> None:
    before = f"; version {move.before} is previous" if move.before else ""
    click.echo(f"{name}: version {move.version} is champion{before}")


def _title(version: Version) -> str:
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    return f"{version.version}{aliases}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _versions_table(name: str, versions: Sequence[Version]) -> Table:
    metrics = [m for m in HEADLINE if any(m in v.metrics for v in versions)]
    table = Table(title=name, title_justify="left", box=None, pad_edge=False)
    for column in ("version", "framework", "made", *metrics, "blessed", "aliases", "run"):
        table.add_column(column)
    for v in versions:
        values = (_number(v.metrics.get(m)) for m in metrics)
        table.add_row(
            v.version,
            v.framework,
            _when(v.created),
            *values,
            "yes" if v.blessed else "no",
            ", ".join(v.aliases),
            (v.run_id or "")[:8],
        )
    return table


def _moves_table(moves: Sequence[Move]) -> Table:
    table = Table(title="moves of the champion", title_justify="left", box=None, pad_edge=False)
    for column in ("when", "who", "what", "why"):
        table.add_column(column)
    for m in moves:
        table.add_row(_when(m.at), m.who, f"{m.action} {m.before or 'none'} -> {m.version}", m.why)
    return table


def _print_comparison(found: OnSameRows, chosen: Sequence[Version], data: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    weighted = f", weighted by {found.weighted_by}" if found.weighted_by else ""
    table = Table(title=f"{found.rows:,} rows of {data}{weighted}", title_justify="left", box=None, pad_edge=False)
    second = chosen[1].version
    for column in ("metric", *(_title(v) for v in chosen), f"version {second} is better by", "95 % interval"):
        table.add_column(column)
    for metric, (difference, bounds) in sorted(found.better.items(), key=lambda kv: kv[0] != found.primary):
        between = f"{bounds[0]:+.4f} to {bounds[1]:+.4f}" if bounds else ""
        change = "" if difference is None else f"{difference:+.4f}"
        table.add_row(metric, *(_number(found.metrics[v.version][metric]) for v in chosen), change, between)
    for metric, (difference, bounds) in found.changes.items():
        between = f"{bounds[0]:+.4f} to {bounds[1]:+.4f}" if bounds else ""
        change = "" if difference is None else f"changes by {difference:+.4f}"
        table.add_row(metric, *(_number(found.metrics[v.version].get(metric)) for v in chosen), change, between)
    table_console().print(table)
    if found.unlabelled:
        click.echo(f"{found.unlabelled:,} other rows have no label and are left out.")
    if found.note:
        click.echo(f"{found.note}.")
    if found.incomplete:
        click.echo(f"{found.incomplete:,} windows with a gap or a missing number are left out.")
    if found.unmeasured:
        click.echo(f"not measured here: {in_a_line(found.unmeasured)}, metrics of your own; give their file by --metrics.")
