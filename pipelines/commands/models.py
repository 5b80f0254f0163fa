"""`switchyard models`: lists and compares registered versions, shows the champion's history, and moves the alias."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from switchyard.components.errors import EXIT_DONE, EXIT_FAILED, StageError, UserError, did_you_mean
from switchyard.components.metrics import DIRECTION, HEADLINE, PRIMARY, base, direction
from switchyard.components.tasks import RANKING, TASKS
from switchyard.components.text.visible import in_a_line, in_line
from switchyard.components.tracking import model_registry
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.model_registry import Move, Version
from switchyard.pipelines.commands.options import (
    handle_errors,
    json_option,
    registry_option,
    workspace_option,
)
from switchyard.pipelines.terminal.output import quiet, table_console
from switchyard.pipelines.workspace import registry_uri

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from switchyard.components.bundle.model import BundleInfo
    from switchyard.components.data.summary import DatasetSummary


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
@click.argument("name")
@click.argument("versions", nargs=2, metavar="VERSION VERSION")
@click.option("--data", type=click.Path(path_type=Path), help="Evaluate both on the rows of this file, which includes the label.")
@click.option(
    "--sample-weight",
    metavar="COLUMN",
    help="Column of --data to weigh its rows by, '' for none. [default: that of the versions]",
)
@json_option
@registry_option
@workspace_option
@handle_errors
def models_compare(
    name: str,
    versions: tuple[str, str],
    data: Path | None,
    sample_weight: str | None,
    as_json: bool,
    tracking_uri: str | None,
    workspace: Path | None,
) -> None:
    """Compare two versions (numbers or aliases) of the model NAME."""
    compare(registry_uri(tracking_uri, workspace), name, versions, data, sample_weight, as_json=as_json)


@command.command("promote")
@click.argument("name")
@click.argument("version")
@_why
@click.option("--force", is_flag=True, help="Promote a version that was not blessed.")
@registry_option
@workspace_option
@handle_errors
def models_promote(name: str, version: str, why: str, force: bool, tracking_uri: str | None, workspace: Path | None) -> None:
    """Make VERSION (a number or an alias) of the model NAME its champion; the current one becomes `previous`."""
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
@click.argument("version")
@json_option
@registry_option
@workspace_option
@handle_errors
def models_verify(name: str, version: str, as_json: bool, tracking_uri: str | None, workspace: Path | None) -> None:
    """Check VERSION (a number or an alias) of the model NAME again; exit code 1 if something changed.

    Its files are compared with the registered digest, its training data, if still at hand, with the registered fingerprint.
    """
    sys.exit(verify(registry_uri(tracking_uri, workspace), name, version, as_json=as_json))


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
    uri: str, name: str, wanted: Sequence[str], data: Path | None, sample_weight: str | None = None, *, as_json: bool
) -> None:
    """Prints two versions' recorded metrics side by side; with `data`, evaluates both on the same rows.

    Args:
        uri: MLflow's server or database.
        name: the registered model.
        wanted: numbers or aliases of two versions.
        data: file with rows and their labels.
        sample_weight: column to weigh the rows of `data` by; None: that of the versions; empty: all weigh the same.
        as_json: whether to print JSON.
    """
    if sample_weight is not None and data is None:
        raise UserError("--sample-weight: without --data no rows are weighed; give --data FILE, or remove it")
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
            found = _evaluate_on(uri, name, chosen, data, sample_weight)
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


def verify(uri: str, name: str, wanted: str, *, as_json: bool) -> int:
    """Prints the checks of a version; returns the exit code."""
    from switchyard.components.bundle.verification import check_version

    client = tracking.client(uri)
    version = find_version(client, name, wanted)
    with quiet():
        checks = check_version(client, uri, name, version.version)
    if as_json:
        click.echo(json.dumps({"name": name, "version": version.version, "checks": [asdict(c) for c in checks]}))
    else:
        table = Table(title=f"{name} version {_title(version)}", title_justify="left", box=None, pad_edge=False)
        for column in ("what", "outcome", "found"):
            table.add_column(column)
        for check in checks:
            table.add_row(in_line(check.what), check.outcome, in_line(check.found))
        table_console().print(table)
    return EXIT_FAILED if any(c.outcome == "changed" for c in checks) else EXIT_DONE


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


@dataclass(frozen=True)
class OnSameRows:
    """Two versions on the same rows: metric -> values, and metric -> (improvement, interval) of the second over the first.

    Undefined values are None: the AUC of a single class, the precision without positive predictions. `weighted_by` is the column
    of the sample weights, empty if all rows weigh the same.
    """

    rows: int
    primary: str
    metrics: dict[str, dict[str, float | None]]
    better: dict[str, tuple[float | None, tuple[float, float] | None]]
    weighted_by: str = ""


def _evaluate_on(uri: str, name: str, chosen: Sequence[Version], data: Path, sample_weight: str | None) -> OnSameRows:
    from switchyard.components.import_order import import_torch_first

    import_torch_first()
    from switchyard.components.bundle.model import load_bundle, reordered, training_data
    from switchyard.components.bundle.source import ModelRef
    from switchyard.components.data.summary import DatasetSummary
    from switchyard.components.evaluation.bootstrap import Rows, interval, replicates, unit_weights, weighted_metrics

    scores: dict[str, Any] = {}
    targets: dict[str, Any] = {}
    weighed: dict[str, pd.Series] = {}
    classes: list[Any] = []
    for version in chosen:
        with ModelRef(uri, name, version.version).open() as opened:
            bundle = load_bundle(opened.folder, opened.digest)
            info = bundle.info
            # The positive class may differ: scores are reordered to the first version's classes.
            summary = DatasetSummary.load(str(training_data(opened.folder)))
            targets[version.version] = (info.task, info.label, sorted(map(str, info.classes)), info.targets, summary.group)
            classes = classes or info.classes
            if len(set(map(repr, targets.values()))) > 1:
                listed = "; ".join(f"version {v} predicts {label} ({task})" for v, (task, label, *_) in targets.items())
                raise UserError(
                    f"{name}: {listed}, perhaps with different classes, quantiles or groups; they cannot be compared on the same "
                    "rows."
                )
            numbers = {f.name for f in info.features if f.dtype != "string"}
            weight = info.sample_weight if sample_weight is None else sample_weight
            frame = _read_rows(data, opened.folder, numbers | {*info.labels, weight})
            frame = _labelled(frame, info, summary, data)
            if sample_weight:
                _check_choice(sample_weight, frame, info, data)
            if weight and weight in frame:
                weighed[weight] = frame[weight]
            if len(weighed) > 1:
                listed = " and ".join(map(repr, weighed))
                raise UserError(
                    f"{name}: versions {' and '.join(v.version for v in chosen)} have different sample weights, {listed}; choose "
                    "one column for both by --sample-weight COLUMN, or --sample-weight '' to weigh all rows the same"
                )
            try:
                scores[version.version] = reordered(bundle.scores(frame), info, classes)
            except UserError as error:
                raise UserError(f"{data}: {error}") from None
    labels = _encoded(frame, info, classes, summary.group, data)
    if TASKS[info.task].has_probabilities:
        scores = {v: s.clip(1e-7, 1 - 1e-7) for v, s in scores.items()}
    weighted_by = next(iter(weighed), "")
    weights = _weights(weighed[weighted_by], weighted_by, data) if weighed else None
    functions = {v: weighted_metrics(info.task, labels, s, info.targets) for v, s in scores.items()}
    of_units = unit_weights(info.task, labels, weights)
    measured = {v: {m: float(f(of_units)) for m, f in of.items()} for v, of in functions.items()}
    samples = replicates(Rows(info.task, labels, scores, targets=info.targets, weights=weights))
    first, second = (v.version for v in chosen)
    better = {
        m: (
            _existing(direction(m) * (measured[second][m] - measured[first][m])),
            interval(direction(m) * (samples[second][m] - samples[first][m])),
        )
        for m in measured[first]
        if base(m) in DIRECTION
    }
    existing = {v: {m: _existing(value) for m, value in of.items()} for v, of in measured.items()}
    return OnSameRows(len(labels), PRIMARY[info.task], existing, better, weighted_by)


def _with_listed(known: pd.DataFrame, info: BundleInfo, separator: str, data: Path) -> pd.DataFrame:
    """Returns the rows with a column of 0 and 1 for each class that the label column lists."""
    import pyarrow as pa

    from switchyard.components.ingest.bad_rows import BadRows
    from switchyard.components.ingest.class_lists import class_lists, expanded

    bad = BadRows(0)
    column = pa.RecordBatch.from_arrays([pa.array(known[info.label].tolist())], names=[info.label])
    ones, others = expanded(class_lists(column, info.label, separator, (), str(data), bad), info.label, info.targets)
    if bad.count:
        raise UserError(f"--data: {bad.first(1).strip()}; correct it")
    if others:
        raise UserError(f"{data}: {info.label} holds {in_a_line(others[:5])}; the models' classes are {in_a_line(info.targets)}.")
    return known.assign(**{n: c.to_numpy() for n, c in zip(ones.schema.names, ones.columns, strict=True)})


def _labelled(frame: pd.DataFrame, info: BundleInfo, summary: DatasetSummary, data: Path) -> pd.DataFrame:
    """Returns the rows with every label, and with the group of a ranking."""
    from switchyard.components.ingest.class_lists import lists_classes

    group, lists = summary.group, lists_classes(info.task, info.label, info.targets)
    needed = [*([info.label] if lists else info.labels), *([group] if group else [])]
    for label in needed:
        if label not in frame:
            what = "group" if label == group else "label"
            raise UserError(f"{data}: has no column {label!r}, the {what}. Columns: {in_a_line(frame.columns)}.")
    known = frame[frame[needed].notna().all(axis=1)]
    if known.empty:
        raise UserError(f"{data}: no row has a value of {info.label!r}, the label. Give rows whose outcome is known.")
    return _with_listed(known, info, summary.label_separator, data) if lists else known


def _check_choice(weight: str, frame: pd.DataFrame, info: BundleInfo, data: Path) -> None:
    if info.task == RANKING:
        raise UserError("--sample-weight: a ranking is measured by query, not by row; remove it")
    if weight in info.labels:
        raise UserError(f"--sample-weight: the column {weight!r} is the label; name another column")
    if weight not in frame:
        raise UserError(
            f"--sample-weight: {data} has no column {weight!r}.{did_you_mean(weight, frame.columns)} "
            f"Columns: {in_a_line(frame.columns)}."
        )


def _weights(column: pd.Series, name: str, data: Path) -> np.ndarray:
    """Returns the sample weights of the rows, float64 (B,)."""
    import numpy as np
    import pandas as pd

    weights = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    if not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
        raise UserError(
            f"{data}: {name}, the sample weights, must be finite numbers of 0 or more, not all 0; correct them, or use "
            "--sample-weight '' to weigh all rows the same"
        )
    return weights


def _existing(value: float) -> float | None:
    return None if math.isnan(value) else value


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
    table_console().print(table)


def _read_rows(data: Path, model: Path, numbers: Collection[str]) -> pd.DataFrame:
    """Reads rows in the same way as the model's training data."""
    import pandas as pd

    from switchyard.components.bundle.model import training_data
    from switchyard.components.data.summary import DatasetSummary
    from switchyard.components.ingest.bad_rows import BadRows
    from switchyard.components.ingest.csv_options import CsvOptions
    from switchyard.components.ingest.declared import plain_numbers
    from switchyard.components.ingest.images import in_parts, with_images
    from switchyard.components.ingest.readers import reader
    from switchyard.components.ingest.sources import find_files, format_of

    summary = DatasetSummary.load(str(training_data(model)))
    options = CsvOptions.of(summary.csv)
    frames = []
    for file in find_files([str(data)], "--data"):
        kind = format_of(file, "auto")
        with closing(reader(kind, options)(file, BadRows(0), summary.missing_values)) as batches:
            parts = (with_images(b, summary.images, file) for b in in_parts(batches, summary.images))
            plain = (plain_numbers(b, numbers, options) if kind == "csv" else b for b in parts)
            frames += [b.to_pandas(integer_object_nulls=True) for b in plain]
    if not frames:
        raise StageError(f"{data}: no rows.")
    rows: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return rows


def _encoded(frame: pd.DataFrame, info: BundleInfo, classes: Sequence[Any], group: str | None, data: Path) -> np.ndarray:
    """Returns the labels of rows, see `bootstrap.Rows`. Raises UserError for values that are no label of the models."""
    import numpy as np
    import pyarrow as pa

    from switchyard.components.evaluation.ranking import query_codes
    from switchyard.components.ingest.labels import ZERO_OR_ONE, zero_or_one

    kept = ZERO_OR_ONE if zero_or_one(info.task) else classes
    each = [_labels(frame[label], kept) for label in info.labels]
    for label, values in zip(info.labels, each, strict=True):
        if np.isnan(values).any():
            unknown = sorted({str(v) for v in frame[label][np.isnan(values)]})[:5]
            known = f"the models' classes are {in_a_line(kept)}" if kept else "the models predict numbers"
            raise UserError(f"{data}: {label} holds {in_a_line(unknown)}; {known}.")
    if group:
        each.append(query_codes(pa.array(frame[group].tolist())))
    return np.stack(each, axis=1) if len(each) > 1 else each[0]


def _labels(column: pd.Series, classes: Sequence[Any]) -> np.ndarray:
    """Returns class indices, or the values of a regression, float64 (B,); NaN for values that are no class or no number."""
    import numpy as np
    import pandas as pd

    from switchyard.components.ingest.labels import class_of

    if not classes:
        return pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    index = {c: float(i) for i, c in enumerate(classes)}
    found = (class_of(v.item() if isinstance(v, np.generic) else v, classes, untyped=True) for v in column)
    return np.asarray([np.nan if c is None else index[c] for c in found])
