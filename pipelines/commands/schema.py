"""`switchyard schema`: infers a reviewed schema from the data, compares it with the data, and updates it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from google.protobuf import text_format
from rich.table import Table
from tensorflow_metadata.proto.v0 import schema_pb2

from switchyard.components.data.schema import belongs, domain, environment_of
from switchyard.components.data_gate.findings import listed
from switchyard.components.errors import Failure, UserError, did_you_mean
from switchyard.pipelines.api.output_path import check_output
from switchyard.pipelines.commands.options import (
    handle_errors,
    overrides_option,
    pipeline_argument,
    workspace_option,
)
from switchyard.pipelines.terminal.output import quiet, stderr_console, table_console
from switchyard.pipelines.workspace import Workspace, default_workspace

if TYPE_CHECKING:
    from switchyard.components.data_gate.statistics import Statistics
    from switchyard.pipelines.config.pipeline import PipelineConfig

STAGES = ("ingest", "statistics", "schema")
DEFAULT_NAME = "schema.pbtxt"


@click.group("schema")
def command() -> None:
    """Infer, show and update a reviewed schema, and compare it with the data."""


@command.command("infer")
@pipeline_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Output file.  [default: schema.pbtxt beside the YAML]",
)
@overrides_option
@workspace_option
@handle_errors
def schema_infer(pipeline: Path, output: Path | None, overrides: tuple[str, ...], workspace: Path | None) -> None:
    """Write the schema of PIPELINE's training split, for you to review."""
    infer(pipeline, overrides, workspace, output)


@command.command("show")
@click.argument("source", type=click.Path(path_type=Path))
@handle_errors
def schema_show(source: Path) -> None:
    """Print a schema: SOURCE is a schema.pbtxt, or a pipeline.yaml that names one."""
    show(source)


@command.command("diff")
@pipeline_argument
@overrides_option
@workspace_option
@handle_errors
def schema_diff(pipeline: Path, overrides: tuple[str, ...], workspace: Path | None) -> None:
    """Print how PIPELINE's data would change its reviewed schema; exit code 1 if it would."""
    sys.exit(diff(pipeline, overrides, workspace))


@command.command("accept")
@pipeline_argument
@click.option("--feature", "features", multiple=True, metavar="NAME", help="Only this feature; may be repeated.")
@overrides_option
@workspace_option
@handle_errors
def schema_accept(pipeline: Path, features: tuple[str, ...], overrides: tuple[str, ...], workspace: Path | None) -> None:
    """Update PIPELINE's reviewed schema to accept its data."""
    accept(pipeline, overrides, workspace, features)


def infer(pipeline: Path, overrides: Sequence[str], workspace: Path | None, output: Path | None) -> None:
    """Writes the inferred schema for review: from the training split, extended by the other splits.

    Raises:
        UserError: the file already exists.
    """
    target = output or pipeline.parent / DEFAULT_NAME
    if target.exists():
        raise UserError(f"{target} already exists. Compare with switchyard schema diff, or give another file with -o.")
    check_output(target)
    _, statistics = _examine(pipeline, overrides, workspace)
    with quiet():
        import tensorflow_data_validation as tfdv
    # A schema from the training split alone would refuse rare values that chance put into another split.
    schema = _updated(tfdv.infer_schema(statistics["train"]), statistics, None, None)
    target.write_text(text_format.MessageToString(schema), encoding="utf-8")
    click.echo(f"wrote {target}")
    click.echo("Review it: types, presence, domains, value ranges. Then name it in the pipeline: validation: {schema: ...}")


def show(source: Path) -> None:
    """Prints a schema, or a pipeline's."""
    from switchyard.pipelines.config.load import load_config

    schema = _read(source if source.suffix in (".pbtxt", ".txt") else _curated(load_config(source)))
    table = Table(box=None, pad_edge=False)
    for column in ("feature", "type", "present in", "values", "drift above"):
        table.add_column(column)
    for feature in schema.feature:
        table.add_row(feature.name, _type(feature), _presence(feature), _values(schema, feature), _comparator(feature))
    table_console().print(table)
    if schema.default_environment:
        click.echo(f"environments: {', '.join(schema.default_environment)}")


def diff(pipeline: Path, overrides: Sequence[str], workspace: Path | None) -> int:
    """Prints the changes that would fit the reviewed schema to the data; returns 1 if there are any."""
    config, statistics = _examine(pipeline, overrides, workspace)
    path = _curated(config)
    changed = _difference(_read(path), _updated(_read(path), statistics, None, config.validation.environment), path)
    click.echo("".join(changed) if changed else f"{path}: the data fits")
    return 1 if changed else 0


def accept(pipeline: Path, overrides: Sequence[str], workspace: Path | None, features: Sequence[str]) -> None:
    """Updates the reviewed schema to fit the data: all features, or those named."""
    config, statistics = _examine(pipeline, overrides, workspace)
    path = _curated(config)
    schema = _read(path)
    updated = _updated(schema, statistics, list(features) or None, config.validation.environment)
    changed = _difference(schema, updated, path)
    if not changed:
        click.echo(f"{path}: the data fits already")
        return
    click.echo("".join(changed))
    path.write_text(text_format.MessageToString(updated), encoding="utf-8")
    click.echo(f"changed {path}; review and commit it")


def _examine(pipeline: Path, overrides: Sequence[str], workspace: Path | None) -> tuple[PipelineConfig, Mapping[str, Statistics]]:
    """Runs ingest and statistics (cached if possible) and returns the config and the statistics by split."""
    from switchyard.components.data_gate.statistics import read_statistics
    from switchyard.pipelines.config.load import load_config
    from switchyard.pipelines.runners.local.runner import LocalRunner
    from switchyard.pipelines.runners.this_machine import stop_on_sigterm

    config = load_config(pipeline, overrides=overrides)
    stop_on_sigterm()
    place = Workspace((workspace or default_workspace(pipeline)).resolve())
    place.contain_libraries()
    # The reviewed schema is not needed here, and may be invalid.
    plain = config.model_copy(update={"validation": config.validation.model_copy(update={"schema_path": None})})
    with LocalRunner(place, stderr_console(), pipeline.resolve(), only=STAGES) as runner:
        result = runner.run(plain)
    if result.error:
        raise Failure.of_exit_code(result.exit_code, result.error).error()
    folder = Path(result.outputs["statistics"]["statistics"])
    return config, {p.name.removeprefix("Split-"): read_statistics(p / "FeatureStats.pb") for p in sorted(folder.glob("Split-*"))}


def _curated(config: PipelineConfig) -> Path:
    path = config.validation.schema_path
    if path is None:
        raise UserError("validation.schema: the pipeline has no reviewed schema; create one: switchyard schema infer PIPELINE.")
    return Path(path)


def _read(path: Path) -> schema_pb2.Schema:
    try:
        schema: schema_pb2.Schema = text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
    except text_format.ParseError as error:
        raise UserError(f"{path} is not a schema in text form: {error}") from None
    return schema


def _updated(
    schema: schema_pb2.Schema,
    statistics: Mapping[str, Statistics],
    features: Sequence[str] | None,
    environment: str | None,
) -> schema_pb2.Schema:
    with quiet():
        import tensorflow_data_validation as tfdv
    updated = schema_pb2.Schema()
    updated.CopyFrom(schema)
    # Features of another environment are not expected here; TFDV's update does not support environments.
    chosen_environment = environment_of(schema, environment)
    elsewhere = [f for f in schema.feature if not belongs(f, chosen_environment, schema.default_environment)]
    for feature in elsewhere:
        updated.feature.remove(feature)
    # The training split comes first, as the most informative.
    for split in sorted(statistics, key=lambda s: s != "train"):
        updated = tfdv.update_schema(updated, statistics[split])
    updated.feature.extend(elsewhere)
    if features is None:
        return updated
    known = {f.name: f for f in updated.feature}
    for name in features:
        if name not in known:
            raise UserError(f"--feature: unknown feature {name!r}.{did_you_mean(name, known)} Features: {listed(list(known))}.")
    chosen = schema_pb2.Schema()
    chosen.CopyFrom(schema)
    domains = {d.name: d for d in updated.string_domain}
    for name in features:
        mine = next((f for f in chosen.feature if f.name == name), None)
        (mine or chosen.feature.add()).CopyFrom(known[name])
        if known[name].domain in domains:
            domain = next((d for d in chosen.string_domain if d.name == known[name].domain), None)
            (domain or chosen.string_domain.add()).CopyFrom(domains[known[name].domain])
    return chosen


def _difference(before: schema_pb2.Schema, after: schema_pb2.Schema, path: Path) -> list[str]:
    texts = [text_format.MessageToString(s).splitlines(keepends=True) for s in (before, after)]
    return list(difflib.unified_diff(texts[0], texts[1], str(path), f"{path} for this data", n=4))


def _type(feature: Any) -> str:
    return str(schema_pb2.FeatureType.Name(feature.type))


def _presence(feature: Any) -> str:
    least = feature.presence.min_fraction
    where = f", not in {', '.join(feature.not_in_environment)}" if feature.not_in_environment else ""
    return (f"{least:.0%} of rows" if least else "any share of rows") + where


def _values(schema: schema_pb2.Schema, feature: Any) -> str:
    for kind in ("int_domain", "float_domain"):
        if feature.HasField(kind):
            bounds = getattr(feature, kind)
            low, high = (f"{getattr(bounds, b):g}" if bounds.HasField(b) else "any" for b in ("min", "max"))
            return f"{low} to {high}"
    return listed(domain(schema, feature))


def _comparator(feature: Any) -> str:
    found = feature.drift_comparator
    parts = [("L-infinity", found.infinity_norm), ("Jensen-Shannon", found.jensen_shannon_divergence)]
    return ", ".join(f"{name} {measure.threshold:g}" for name, measure in parts if measure.threshold)
