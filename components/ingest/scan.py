"""First pass over the input: columns, types, label values and bad rows. Checks the data before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from switchyard.components.data import class_order
from switchyard.components.errors import UserError, did_you_mean
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.class_lists import check_classes, class_lists, expanded
from switchyard.components.ingest.column_types import EMPTY, FLOAT, INTEGER, STRING, ColumnType
from switchyard.components.ingest.columns_seen import ColumnsSeen
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.declared import NUMBER, TEXT, check_declared, fitting, plain_numbers
from switchyard.components.ingest.float_precision import settled
from switchyard.components.ingest.images import checked_images, in_parts
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.ingest.keys import with_key
from switchyard.components.ingest.labels import (
    ZERO_OR_ONE,
    LabelValues,
    check_label,
    class_of,
    infer_task,
    labelled,
    zero_or_one,
)
from switchyard.components.ingest.layout import added_columns, folder_columns, with_folders
from switchyard.components.ingest.number_lists import label_shape, vectors
from switchyard.components.ingest.readers import reader
from switchyard.components.ingest.reading import Batches
from switchyard.components.ingest.scalars import check_values
from switchyard.components.ingest.sources import format_of, listed
from switchyard.components.progress import say
from switchyard.components.tasks import TASKS
from switchyard.components.text.visible import in_a_line
from switchyard.components.values.spelling import MISSING_LABELS

# Column with the number of each row in its file while rows are left out; no column of a file has such a name.
_ROW = "\0row"
# Enough rows to infer a task; also the upper limit of rows read before a run starts.
PEEK_ROWS = 20_000
# The same for rows with images, whose files are opened.
PEEK_IMAGES = 2_000
# The gain of a relevance is 2 to its power.
LARGEST_RELEVANCE = 31


@dataclass
class Scan:
    """Result of the first pass.

    Attributes:
        classes: label classes; for a peek, possibly only those in the first rows.
        label_counts: class -> rows; empty when the label has too many values to be classes.
        positive_by: reason why the last class of a binary task is the positive one.
        missing_keys: rows without a value of the `split_key`.
        notes: warnings about columns and values.
        targets: see `DatasetSummary.targets`; for a peek, possibly only the classes listed in the first rows.
        is_partial: whether a peek ended before the last row.
        label_shape: see `DatasetSummary.label_shape`.
    """

    task: str
    classes: list[int] | list[str]
    types: dict[str, ColumnType]
    missing: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    label_counts: dict[str, int] = field(default_factory=dict)
    positive_by: str = ""
    missing_keys: int = 0
    notes: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    is_partial: bool = False
    label_shape: list[int] = field(default_factory=list)


def read_batches(
    spec: InputSpec,
    file: str,
    bad: BadRows,
    names: set[str] | None = None,
    numeric: Collection[str] = (),
    added: set[str] | None = None,
    *,
    decode: bool = True,
) -> Batches:
    """Yields a file's batches without excluded columns (a `split_key` stays), columns added by the format, and bad rows.

    Args:
        spec: input specification.
        file: one of its files.
        bad: collects the bad rows.
        names: collects the names of all columns, including excluded ones.
        numeric: CSV columns known to be numbers, in addition to the declared ones.
        added: collects the names of the columns that the format added.
        decode: whether to decode images; otherwise their headers alone are checked.

    Raises:
        UserError: the file has no label column, no key column, or an unnamed column that is no index.
    """
    kind, options, missing = format_of(file, spec.format), CsvOptions.of(spec.csv), spec.missing_values or ()
    declared = {n for n, declaration in spec.columns.items() if declaration == NUMBER}
    read_labels = [spec.label] if spec.lists_classes else spec.labels
    label_words = {n: () if spec.columns.get(n) == TEXT else (*MISSING_LABELS, *missing) for n in read_labels}
    folders = folder_columns(file, spec.patterns)
    left_out: list[str] | None = None
    here: set[str] = set()
    first = 0
    # Close the reader when a caller stops early: an open reader would keep reading while the interpreter shuts down.
    unread = set(spec.exclude) - {spec.split_key}
    with closing(reader(kind, options, lambda name: name not in unread)(file, bad, spec.missing_values)) as batches:
        for read in in_parts(batches, spec.images):
            whole = with_folders(read, folders)
            here.update(whole.schema.names)
            if names is not None:
                names.update(here)
            if left_out is None:
                left_out = added_columns(whole, file, (*spec.exclude, *spec.columns, *read_labels, spec.split_key))
                if added is not None:
                    added.update(left_out)
            for label in read_labels:
                if label not in whole.schema.names:
                    raise _no_column("label", file, label, whole.schema.names)
                check_values(whole.column(label), "label", label, file, first, text=True)
            for image in spec.images:
                if image not in whole.schema.names:
                    raise _no_column("data.columns", file, image, whole.schema.names)
            if spec.split_key and spec.split_key in whole.schema.names:
                check_values(whole.column(spec.split_key), "data.split_key", spec.split_key, file, first, text=False)
            left = {*spec.exclude, *left_out} - {spec.split_key}
            batch = whole.select([n for n in whole.schema.names if n not in left])
            if kind == "csv":
                batch = plain_numbers(batch, {*declared, *numeric}, options)
            batch = _numbered(batch, first) if spec.lists_classes else batch
            batch = fitting(batch, spec.columns, missing, file, first, bad)
            batch = checked_images(batch, spec.images, file, first, bad, decode=decode)
            first += whole.num_rows
            batch = _labelled(batch, label_words, spec, file, bad)
            if batch.num_rows:
                yield with_key(batch, spec.split_key) if spec.split_key else batch
    if spec.split_key and here and spec.split_key not in here:
        raise _no_column("group" if spec.group else "data.split_key", file, spec.split_key, here)


def _numbered(batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
    return batch.append_column(_ROW, pa.array(range(first, first + batch.num_rows), pa.int64()))


def _labelled(
    batch: pa.RecordBatch, missing: Mapping[str, Sequence[str]], spec: InputSpec, file: str, bad: BadRows
) -> pa.RecordBatch:
    """Returns the rows with a label; listed classes as columns of 0 and 1 if all classes are known, else as lists.

    Args:
        batch: rows of one file.
        missing: label column -> texts that mean that a row has no label.
        spec: input specification.
        file: name of the file.
        bad: collects the other rows.
    """
    for label, words in missing.items():
        read: Callable[..., pa.RecordBatch] = labelled
        if spec.lists_classes:
            read = partial(class_lists, separator=spec.label_separator, numbers=batch.column(_ROW).to_pylist())
            batch = batch.select([n for n in batch.schema.names if n != _ROW])
        elif spec.output_shape:
            read = vectors
        batch = read(batch, label, words=words, file=file, bad=bad)
    if not (spec.lists_classes and spec.targets):
        return batch
    found, others = expanded(batch, spec.label, spec.targets)
    if others:
        raise UserError(
            f"label: {file}: {in_a_line(others[:5])} of {spec.label!r} was no class before: the file changed during the run. "
            "Run again."
        )
    return found


def _no_column(key: str, file: str, name: str, names: Collection[str]) -> UserError:
    return UserError(
        f"{key}: {file} has no column {name!r}.{did_you_mean(name, names)} Columns: {in_a_line(sorted(names)[:30])}."
    )


def _all_batches(
    spec: InputSpec, files: Sequence[str], bad: BadRows, names: set[str], added: set[str], *, decode: bool
) -> Generator[tuple[str, pa.RecordBatch], None, None]:
    for file in files:
        with closing(read_batches(spec, file, bad, names, added=added, decode=decode)) as batches:
            for batch in batches:
                yield file, batch


def scan(spec: InputSpec, bad: BadRows, *, peek: bool = False) -> Scan:
    """Reads all rows (with `peek`, only the first ones) and returns what they contain.

    Raises:
        UserError: no rows, a bad label, a column of an unusable type, or a configured column that does not exist.
    """
    spec = spec.with_folders()
    seen, is_partial = ColumnsSeen(spec, peek=peek), False
    names = set(spec.folder_columns)
    added: set[str] = set()
    files = [f for group in spec.files().values() for f in group]
    with closing(_all_batches(spec, files, bad, names, added, decode=not peek)) as batches:
        for file, batch in batches:
            seen.add(file, batch)
            say(f"{seen.rows:,} rows read")
            if peek and seen.rows >= (PEEK_IMAGES if spec.images else PEEK_ROWS):
                is_partial = True
                break
    types, rows = seen.types, seen.rows
    if ambiguous := sorted(added & types.keys()):
        raise UserError(
            f"data: column {ambiguous[0]!r} counts the rows in some files, like a stored index, but not in others. Rename it "
            f"if it is data, or exclude it: data.exclude: [{ambiguous[0]!r}]."
        )
    found = Scan("", [], types, {n: rows - c for n, c in seen.present.items()}, rows, missing_keys=seen.keyless)
    found.targets, found.is_partial = list(spec.targets), is_partial
    if not peek or bad.count > bad.limit:
        bad.check()
    if not rows:
        left_out = (
            f" {bad.count:,} bad rows were skipped, the first:\n{bad.first(1)}\nFix them." if bad.count else " Check the input."
        )
        raise UserError(f"data: no rows in {', '.join(files[:3])}.{left_out}")
    _check_names(spec, names, files)
    found.notes += seen.check()
    _check_weight(spec, found)
    _check_sequences(spec, found, seen.with_lists)
    if spec.lists_classes:
        found = _check_listed(spec, found, sorted(seen.listed))
    elif spec.output_shape:
        found.task, found.label_shape = spec.task, label_shape(spec.labels, found.types, seen.lengths, spec.output_shape)
    else:
        check = _check_types if len(spec.labels) == 1 else _check_labels
        found = check(spec, found, seen.labels, peek)
    if (
        all(t.kind == EMPTY for n, t in found.types.items() if n not in (*spec.labels, *found.targets, spec.sample_weight))
        and not peek
    ):
        besides = f" besides the label {spec.label!r}" if spec.label else ""
        raise UserError(f"data: no usable feature{besides}. Columns: {in_a_line(found.types)}.")
    if not peek:
        found.types, notes = settled(found.types, seen.precision.losses(found.types), spec.labels, spec.max_float32_loss)
        found.notes = [*_layout_notes(spec, added), *found.notes, *notes]
    return found


def _layout_notes(spec: InputSpec, added: set[str]) -> list[str]:
    notes = []
    folders = set(spec.folder_columns) - set(spec.exclude)
    if added:
        names = ", ".join(repr(n) for n in sorted(added))
        notes.append(f"skipped {names}, an index stored with the columns; to use it, rename it")
    if folders:
        notes.append(f"read from folder names, as text: {in_a_line(sorted(folders))}")
    skipped = [p for found in spec.listings.values() for p in found.skipped]
    if skipped:
        notes.append(f"{len(skipped)} files without rows are skipped (markers and empty parts): {listed(skipped)}")
    return notes


def _check_names(spec: InputSpec, names: set[str], files: Sequence[str]) -> None:
    check_declared(spec.columns, spec.exclude, names)
    if spec.csv and not any(format_of(f, spec.format) == "csv" for f in files):
        raise UserError(f"data.csv: no file is a CSV ({', '.join(files[:3])}); remove the key.")
    for column in spec.exclude:
        if column not in names:
            raise UserError(
                f"data.exclude: unknown column {column!r}.{did_you_mean(column, names)} Columns: {in_a_line(sorted(names))}."
            )


def _chosen(spec: InputSpec, classes: Sequence[Any]) -> Any | None:
    """Returns the class configured as positive, in any spelling of its value; None when none is configured."""
    if spec.positive_class is None:
        return None
    chosen = class_of(spec.positive_class, classes, untyped=True)
    if chosen is None:
        chosen = class_of(spec.positive_class.lower(), classes, untyped=True)  # Python's spelling: True
    if chosen is None:
        names = [str(c) for c in classes]
        raise UserError(
            f"{class_order.KEY}: {spec.label!r} has no class {spec.positive_class!r}.{did_you_mean(spec.positive_class, names)} "
            f"The classes are {in_a_line(names)}."
        )
    return chosen


def _check_weight(spec: InputSpec, found: Scan) -> None:
    """Raises UserError for sample weights in no column, or in one without numbers; the data gate checks the values."""
    name = spec.sample_weight
    if name is None:
        return
    if name not in found.types:
        columns = [n for n in found.types if n not in spec.labels]
        raise UserError(
            f"trainer.sample_weight: unknown column {name!r}.{did_you_mean(name, columns)} Columns: {in_a_line(columns)}."
        )
    kind = found.types[name]
    if kind.kind == EMPTY and found.is_partial:
        return
    if kind.is_list or kind.kind not in (INTEGER, FLOAT):
        what = "lists" if kind.is_list else "no values" if kind.kind == EMPTY else f"values of type {kind.kind}"
        raise UserError(
            f"trainer.sample_weight: {name!r} holds {what}, a weight is a number; name another column, or remove the key"
        )


def _check_listed(spec: InputSpec, found: Scan, classes: list[str]) -> Scan:
    """Checks the classes of a label column that lists them; each becomes a column of 0 and 1."""
    found.task, found.targets = spec.task, classes
    if not found.is_partial:
        check_classes(spec.label, classes, list(found.types))
    found.types |= {name: ColumnType(INTEGER) for name in classes}
    return found


def _check_sequences(spec: InputSpec, found: Scan, with_lists: Collection[str]) -> None:
    """Gives sequences the type of lists, also if none holds two values. Raises UserError for a column without any list."""
    for name in spec.sequences:
        kind = found.types[name]
        if kind.kind == EMPTY:
            continue
        if name not in with_lists and not found.is_partial:
            raise UserError(
                f"data.columns: {name!r} is declared a sequence, a list of numbers or of texts (JSON Lines, Parquet, TFRecord), "
                f"but each row holds one value of type {kind.kind}; write lists, or remove the declaration"
            )
        found.types[name] = replace(kind, is_list=True)


def _check_labels(spec: InputSpec, found: Scan, labels: Mapping[str, LabelValues], peek: bool) -> Scan:
    """Checks the label columns of a task that has several: numbers, or 0 and 1 if scores are probabilities."""
    found.task = spec.task
    for name, values in labels.items():
        if not found.is_partial:
            check_label(values, spec.task)
        if zero_or_one(spec.task):
            if others := [value for value in values.counts() if value not in ZERO_OR_ONE]:
                raise UserError(
                    f"label: {name!r} holds {in_a_line(others[:5])}; each label of a {spec.task} task is 0 or 1, or false and "
                    "true. Fix the data, or choose another column."
                )
            found.types[name] = ColumnType(INTEGER)
        elif found.types[name].kind == STRING:
            raise UserError(f"label: {name!r} holds true and false; a {spec.task} task needs numbers. Write 0 and 1.")
        if values.spaced and not peek:
            found.notes.append(f"label: {values.spaced:,} values of {name!r} have surrounding spaces, which are removed")
    return found


def _check_ranking(spec: InputSpec, found: Scan, labels: LabelValues) -> None:
    if found.missing_keys:
        raise UserError(
            f"group: {found.missing_keys:,} of {found.rows:,} rows have no value of {spec.group!r} and cannot be ranked. "
            "Fix the data, or leave these rows out of it."
        )
    # Not from the counts, which end at a number of distinct values.
    if labels.range and (outside := [value for value in labels.range if not 0 <= value <= LARGEST_RELEVANCE]):
        raise UserError(
            f"label: {spec.label!r} holds {in_a_line([f'{value:g}' for value in outside])}; a relevance is a number from 0, "
            f"irrelevant, to {LARGEST_RELEVANCE}, whose gain is 2^31 - 1. Scale the label."
        )


def _check_types(spec: InputSpec, found: Scan, every: Mapping[str, LabelValues], peek: bool) -> Scan:
    labels = every[spec.label]
    if not labels.overflow:
        found.label_counts = {str(value): count for value, count in labels.counts().items()}
    found.task = infer_task(labels) if spec.task == "auto" else spec.task
    if spec.positive_class is not None and found.task != "binary":
        raise UserError(
            f"{class_order.KEY}: a {found.task} task has no positive class, received {spec.positive_class!r}. Remove it."
        )
    if peek and (found.is_partial or found.task != "binary"):
        found.classes = list(labels.counts()) if TASKS[found.task].has_classes else []
        return found
    found.classes = check_label(labels, found.task)
    if TASKS[found.task].groups:
        _check_ranking(spec, found, labels)
    if found.task == "binary":
        found.classes, found.positive_by = class_order.ordered(found.classes, labels.counts(), _chosen(spec, found.classes))
    if peek:
        return found
    if found.classes:
        found.types[spec.label] = ColumnType(INTEGER if isinstance(found.classes[0], int) else STRING)
    if labels.spaced:
        found.notes.append(f"label: {labels.spaced:,} values of {spec.label!r} have surrounding spaces, which are removed")
    return found
