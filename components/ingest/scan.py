"""First pass over the input: columns, types, label values, bad rows. Every error of the data is raised here."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from components import class_order
from components.errors import UserError, did_you_mean
from components.ingest.bad_rows import BadRows
from components.ingest.column_types import EMPTY, INTEGER, ColumnType, observe
from components.ingest.float_precision import FloatPrecision, settled
from components.ingest.labels import LabelValues, check_label, infer_task
from components.ingest.layout import added_columns, folder_columns, with_folders
from components.ingest.readers import READERS, Batches
from components.ingest.sources import find_files, format_of, list_files, listed
from components.progress import say

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
    positive_class: str | None = None
    max_float32_loss: float = 0.5

    @property
    def patterns(self) -> list[str]:
        """All files, folders and globs."""
        return [*self.path, *(p for paths in (self.split_paths or {}).values() for p in paths)]

    def files(self) -> dict[str | None, list[str]]:
        """Split -> files; the key None for files whose rows are still to be split."""
        if self.split_paths:
            return {split: find_files(paths) for split, paths in self.split_paths.items()}
        return {None: find_files(self.path)}


@dataclass
class Scan:
    """What the first pass found.

    `label_counts` is empty when the label has too many values to be classes; `positive_by` says why the last class of a
    binary task is the positive one; `notes` are what a person should know before training.
    """

    task: str
    classes: list[int] | list[str]
    types: dict[str, ColumnType]
    missing: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    label_counts: dict[str, int] = field(default_factory=dict)
    positive_by: str = ""
    notes: list[str] = field(default_factory=list)


def read_batches(
    spec: InputSpec, file: str, bad: BadRows, names: set[str] | None = None, added: set[str] | None = None
) -> Batches:
    """Yields a file's batches without the excluded columns, those that a format added, and unlabelled rows.

    Args:
        spec: what to read.
        file: one of its files.
        bad: takes the rows that cannot be used.
        names: takes the names of all columns, the excluded ones too.
        added: takes the names of the columns that a format added.

    Raises:
        UserError: the file has no label column, or a column without a name that is no index.
    """
    kind = format_of(file, spec.format)
    folders = folder_columns(file, spec.patterns)
    left_out: list[str] | None = None
    # Closed here and now when a caller stops early: a reader left open reads on while the interpreter ends.
    with closing(READERS[kind](file, bad, spec.missing_values)) as batches:
        for read in batches:
            whole = with_folders(read, folders)
            if names is not None:
                names.update(whole.schema.names)
            if left_out is None:
                left_out = added_columns(whole, file, (*spec.exclude, spec.label, spec.split_key))
                if added is not None:
                    added.update(left_out)
            if spec.label not in whole.schema.names:
                raise UserError(
                    f"label: {file} has no column {spec.label!r}.{did_you_mean(spec.label, whole.schema.names)} "
                    f"Columns: {', '.join(whole.schema.names[:30])}."
                )
            kept = [n for n in whole.schema.names if n not in spec.exclude and n not in left_out]
            batch = _labelled(whole.select(kept), spec.label, file, bad)
            if batch.num_rows:
                yield batch


def _labelled(batch: pa.RecordBatch, name: str, file: str, bad: BadRows) -> pa.RecordBatch:
    label = batch.column(name)
    valid = pc.and_(label.is_valid(), pc.invert(pc.is_nan(label))) if pa.types.is_floating(label.type) else label.is_valid()
    unlabelled = len(label) - (pc.sum(valid).as_py() or 0)
    if not unlabelled:
        return batch
    bad.add(file, f"the label {name!r} is missing", number=unlabelled)
    return batch.filter(valid)


def _all_batches(
    spec: InputSpec, files: Sequence[str], bad: BadRows, names: set[str], added: set[str]
) -> Generator[tuple[str, pa.RecordBatch], None, None]:
    for file in files:
        with closing(read_batches(spec, file, bad, names, added)) as batches:
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
    precision = FloatPrecision()
    names: set[str] = set()
    added: set[str] = set()
    rows = 0
    files = [f for group in spec.files().values() for f in group]
    folders = {n for f in files for n in folder_columns(f, spec.patterns)}
    with closing(_all_batches(spec, files, bad, names, added)) as batches:
        for file, batch in batches:
            rows += batch.num_rows
            is_text = format_of(file, spec.format) == "csv"
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                # What a folder's name carries is text: 01 is not 1.
                seen = observe(name, column, is_text=is_text and name not in folders)
                types[name] = types[name].widen(seen) if name in types else seen
                if not peek and not seen.is_list:
                    precision.add(name, column, seen.kind)
                present[name] = present.get(name, 0) + len(column) - column.null_count
            label = batch.column(spec.label)
            labels.add(label.flatten() if pa.types.is_nested(label.type) else label)
            say(f"{rows:,} rows read")
            if peek and rows >= PEEK_ROWS:
                break
    found = Scan("", [], types, {n: rows - c for n, c in present.items()}, rows)
    if not peek or bad.count > bad.limit:
        bad.check()
    if not rows:
        raise UserError(f"data: no rows in {', '.join(files[:3])}. Check the input.")
    _check_names(spec, names)
    found = _check_types(spec, found, labels, peek)
    if not peek:
        found.types, notes = settled(found.types, precision.losses(found.types), spec.label, spec.max_float32_loss)
        found.notes = [*_layout_notes(spec, added, folders & set(found.types)), *notes]
    return found


def _layout_notes(spec: InputSpec, added: set[str], folders: set[str]) -> list[str]:
    notes = []
    if added:
        names = ", ".join(repr(n) for n in sorted(added))
        notes.append(f"left out: {names}, an index that was stored beside the columns; to use it, give it a name of its own")
    if folders:
        notes.append(f"read from the names of folders, as text: {', '.join(sorted(folders))}")
    groups = list(spec.split_paths.values()) if spec.split_paths else [spec.path]
    skipped = [p for group in groups for p in list_files(group).skipped]
    if skipped:
        notes.append(f"{len(skipped)} files without rows are skipped (markers and empty parts): {listed(skipped)}")
    return notes


def _check_names(spec: InputSpec, names: set[str]) -> None:
    for key, columns in (("data.exclude", spec.exclude), ("data.split_key", [spec.split_key] if spec.split_key else [])):
        for column in columns:
            if column not in names:
                raise UserError(
                    f"{key}: there is no column {column!r}.{did_you_mean(column, names)} Columns: {', '.join(sorted(names))}."
                )


def _check_types(spec: InputSpec, found: Scan, labels: LabelValues, peek: bool) -> Scan:
    label = found.types[spec.label]
    if not labels.overflow:
        found.label_counts = {v.decode() if isinstance(v, bytes) else str(v): n for v, n in labels.values.items()}
    found.task = infer_task(labels, label.kind) if spec.task == "auto" else spec.task
    if spec.positive_class is not None and found.task != "binary":
        raise UserError(
            f"{class_order.KEY}: a {found.task} task has no positive class, received {spec.positive_class!r}. Remove it."
        )
    if peek and (found.rows >= PEEK_ROWS or found.task != "binary"):
        return found
    found.classes = check_label(labels, label, found.task)
    if found.task == "binary":
        counts = class_order.counted(labels.values, found.classes)
        found.classes, found.positive_by = class_order.ordered(found.classes, counts, spec.positive_class, spec.label)
    if peek:
        return found
    if found.classes and isinstance(found.classes[0], int):
        found.types[spec.label] = ColumnType(INTEGER)
    if all(t.kind == EMPTY for n, t in found.types.items() if n != spec.label):
        raise UserError(f"data: there is no usable feature beside the label {spec.label!r}. Columns: {', '.join(found.types)}.")
    return found
