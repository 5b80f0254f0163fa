"""First pass over the input: columns, types, label values, bad rows. Every error of the data is raised here."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from components.errors import UserError, did_you_mean
from components.ingest.bad_rows import BadRows
from components.cells import is_text as holds_text
from components.cells import plain
from components.ingest.column_types import (
    EMPTY, INTEGER, ColumnType, UnusableColumnError, beyond_integers, mixed_times, observe,
)  # fmt: skip
from components.ingest.keys import check_keys, missing_keys, with_key
from components.ingest.labels import LabelValues, check_label, infer_task
from components.ingest.readers import READERS, Batches, is_untyped
from components.ingest.sources import find_files, format_of
from components.progress import say
from components.spelling import MISSING_LABELS

# Enough to tell a task by; also the limit of what is read before a run starts.
PEEK_ROWS = 20_000


@dataclass(frozen=True)
class InputSpec:
    """What to read: the plain-data form of the config's `data` and `label`."""

    path: Sequence[str]
    split_paths: Mapping[str, Sequence[str]] | None
    weights: Mapping[str, float]
    split_key: str | None
    format: str
    exclude: Sequence[str]
    max_bad_rows: int
    missing_values: Sequence[str] | None
    label: str
    task: str

    def files(self) -> dict[str | None, list[str]]:
        """Split -> files; the key None for files whose rows are still to be split."""
        if self.split_paths:
            return {split: find_files(paths) for split, paths in self.split_paths.items()}
        return {None: find_files(self.path)}


@dataclass
class Scan:
    """What the first pass found.

    Attributes:
        label_counts: empty when the label has too many values to be classes.
        missing_keys: rows without a value of the `split_key`.
    """

    task: str
    classes: list[int] | list[str]
    types: dict[str, ColumnType]
    missing: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    label_counts: dict[str, int] = field(default_factory=dict)
    missing_keys: int = 0


def read_batches(spec: InputSpec, file: str, bad: BadRows, names: set[str] | None = None) -> Batches:
    """Yields a file's batches without the excluded columns (a `split_key` stays) and without unlabelled rows.

    Args:
        spec: what to read.
        file: one of its files.
        bad: takes the rows that cannot be used.
        names: takes the names of all columns, the excluded ones too.

    Raises:
        UserError: the file has no label column, or no key column.
    """
    kind = format_of(file, spec.format)
    here: set[str] = set()
    # Closed here and now when a caller stops early: a reader left open reads on while the interpreter ends.
    with closing(READERS[kind](file, bad, spec.missing_values)) as batches:
        for whole in batches:
            here.update(whole.schema.names)
            if names is not None:
                names.update(here)
            if spec.label not in whole.schema.names:
                raise _no_column("label", file, spec.label, whole.schema.names)
            kept = [n for n in whole.schema.names if n not in spec.exclude or n == spec.split_key]
            batch = _labelled(whole.select(kept), spec, file, bad)
            if batch.num_rows:
                yield with_key(batch, spec.split_key) if spec.split_key else batch
    if spec.split_key and here and spec.split_key not in here:
        raise _no_column("data.split_key", file, spec.split_key, here)


def _no_column(key: str, file: str, name: str, names: Collection[str]) -> UserError:
    return UserError(
        f"{key}: {file} has no column {name!r}.{did_you_mean(name, names)} Columns: {', '.join(sorted(names)[:30])}."
    )


def _labelled(batch: pa.RecordBatch, spec: InputSpec, file: str, bad: BadRows) -> pa.RecordBatch:
    name = spec.label
    label = batch.column(name)
    valid = pc.invert(label.is_null(nan_is_null=True))
    if holds_text(label.type):
        words = pa.array([*MISSING_LABELS, *(spec.missing_values or ())], pa.string())
        valid = pc.and_(valid, pc.invert(pc.is_in(label.cast(pa.binary()), words.cast(pa.binary()))))
    unlabelled = len(label) - (pc.sum(valid).as_py() or 0)
    if not unlabelled:
        return batch
    bad.add(file, f"the label {name!r} is missing", number=unlabelled)
    return batch.filter(valid)


def _all_batches(
    spec: InputSpec, files: Sequence[str], bad: BadRows, names: set[str]
) -> Generator[tuple[str, pa.RecordBatch], None, None]:
    for file in files:
        with closing(read_batches(spec, file, bad, names)) as batches:
            for batch in batches:
                yield file, batch


def scan(spec: InputSpec, bad: BadRows, *, peek: bool = False) -> Scan:
    """Reads all rows (or, to `peek`, the first ones) and returns what they are.

    Raises:
        UserError: no rows, a bad label, a column of an impossible type, columns that are named and not there.
    """
    types: dict[str, ColumnType] = {}
    present: dict[str, int] = {}
    labels = LabelValues(spec.label)
    names: set[str] = set()
    beyond: dict[str, str] = {}
    rows = keyless = 0
    files = [f for group in spec.files().values() for f in group]
    with closing(_all_batches(spec, files, bad, names)) as batches:
        for file, batch in batches:
            rows += batch.num_rows
            is_text = format_of(file, spec.format) == "csv"
            if spec.split_key:
                check_keys(spec.split_key, batch.column(spec.split_key), file)
                keyless += missing_keys(batch.column(spec.split_key))
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if name in spec.exclude:  # the key that splits and is no feature
                    continue
                seen = _observed(spec, file, name, column, batch.schema.field(name), is_text=is_text)
                types[name] = types[name].widen(seen) if name in types else seen
                if seen.is_beyond:
                    beyond.setdefault(name, file)
                present[name] = present.get(name, 0) + len(column) - column.null_count
            label = batch.column(spec.label)
            labels.add(label.flatten() if pa.types.is_nested(label.type) else label)
            say(f"{rows:,} rows read")
            if peek and rows >= PEEK_ROWS:
                break
    found = Scan("", [], types, {n: rows - c for n, c in present.items()}, rows, missing_keys=keyless)
    if not peek or bad.count > bad.limit:
        bad.check()
    if not rows:
        raise UserError(f"data: no rows in {', '.join(files[:3])}. Check the input.")
    _check_names(spec, names)
    for name, kind in types.items():
        if kind.is_mixed:
            raise UserError(f"data: {mixed_times(name)}")
        if kind.is_beyond and name != spec.label:
            raise _located(spec, beyond[name], name, beyond_integers(name))
    return _check_types(spec, found, labels, peek)


def _observed(spec: InputSpec, file: str, name: str, column: pa.Array, field: pa.Field, *, is_text: bool) -> ColumnType:
    """See `observe`; what cannot be used is told with its file and row."""
    missing = tuple(spec.missing_values or ())
    untyped = is_text or is_untyped(field)
    try:
        # Which words a label's are is its own matter: see `labels`.
        return observe(name, column, is_text=untyped, missing=missing, words=name != spec.label)
    except UnusableColumnError as error:
        raise _located(spec, file, name, error) from None


def _located(spec: InputSpec, file: str, name: str, error: UnusableColumnError) -> UserError:
    row = 0
    with closing(READERS[format_of(file, spec.format)](file, BadRows(2**62), spec.missing_values)) as batches:
        for batch in batches if error.is_bad else ():
            column = plain(batch.column(name)) if name in batch.schema.names else pa.nulls(0)
            bad = error.is_bad(column) if error.is_bad and not pa.types.is_null(column.type) else pa.array([], pa.bool_())
            place = pc.index(bad, True).as_py()
            if place >= 0:
                return UserError(f"data: {file}, row {row + place}: {error} Received there: {str(column[place].as_py())[:60]}.")
            row += batch.num_rows
    return UserError(f"data: {file}: {error}")


def _check_names(spec: InputSpec, names: set[str]) -> None:
    for column in spec.exclude:
        if column not in names:
            raise UserError(
                f"data.exclude: there is no column {column!r}.{did_you_mean(column, names)} Columns: {', '.join(sorted(names))}."
            )


def _check_types(spec: InputSpec, found: Scan, labels: LabelValues, peek: bool) -> Scan:
    label = found.types[spec.label]
    if not labels.overflow:
        found.label_counts = {v.decode() if isinstance(v, bytes) else str(v): n for v, n in labels.values.items()}
    found.task = infer_task(labels, label.kind) if spec.task == "auto" else spec.task
    if peek:
        return found
    found.classes = check_label(labels, label, found.task)
    if found.classes and isinstance(found.classes[0], int):
        found.types[spec.label] = ColumnType(INTEGER)
    if all(t.kind == EMPTY for n, t in found.types.items() if n != spec.label):
        raise UserError(f"data: there is no usable feature beside the label {spec.label!r}. Columns: {', '.join(found.types)}.")
    return found
