"""Label columns that list the class names of each row, and the columns of 0 and 1 that they become."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.labels import MAX_CLASSES, as_text, zero_or_one
from switchyard.components.text.visible import in_a_line
from switchyard.components.values.cells import is_list, is_text, plain


def lists_classes(task: str, label: str, targets: Sequence[str]) -> bool:
    """Returns whether one column `label` lists each row's classes; otherwise each target is a column of 0 and 1."""
    return zero_or_one(task) and label != ", ".join(targets)


def class_lists(
    batch: pa.RecordBatch,
    name: str,
    separator: str,
    words: Sequence[str],
    file: str,
    bad: BadRows,
    numbers: Sequence[int] | None = None,
) -> pa.RecordBatch:
    """Returns the rows with a list of classes, as list<string> without repetitions; the others go to `bad`.

    Args:
        batch: rows of one file.
        name: the label column: lists, or texts that are JSON lists or class names between separators.
        separator: separator of class names in a text; empty: texts are JSON lists.
        words: texts that mean that a row has no label.
        file: name of the file.
        bad: collects the bad rows.
        numbers: number of each row in the file; default: the rows are the file's first ones.

    Raises:
        UserError: the column holds neither lists nor texts, or bytes that are not UTF-8.
    """
    column = batch.column(name)
    if not (is_list(column.type) or is_text(plain(column).type) or pa.types.is_null(column.type)):
        raise UserError(
            f"label: {file}: {name!r} holds {column.type}; the label of a multilabel task is a list of class names, or several "
            "columns of 0 and 1: label: [a, b]."
        )
    missing = {"", *words}
    found: list[list[str] | None] = []
    refused = 0
    for row, value in enumerate(plain(column).to_pylist()):
        try:
            classes = _classes(value, separator, missing)
        except _NoListError as error:
            bad.add(file, f"row {row if numbers is None else numbers[row]}: the label {name!r} {error}", str(value))
            classes = None
            refused += 1
        found.append(classes)
    if missed := found.count(None) - refused:
        bad.add(file, f"the label {name!r} is missing; a row without classes has the list []", number=missed)
    lists = pa.array(found, pa.list_(pa.string()))
    whole = batch.set_column(batch.schema.get_field_index(name), name, lists)
    return whole.filter(lists.is_valid()) if lists.null_count else whole


class _NoListError(Exception):
    """A label that is no list of class names."""


def _classes(value: object, separator: str, missing: set[str]) -> list[str] | None:
    """Returns the distinct classes of a row in order of appearance; None for a missing label. Raises _NoListError."""
    value = _decoded(value)
    if separator and isinstance(value, list) and len(value) == 1 and isinstance(item := _decoded(value[0]), str):
        value = item  # tf.Example stores a text as a list of one
    if isinstance(value, str):
        text = value.strip()
        if text in missing:
            return None
        value = _parsed(text, separator)
    if value is None or not isinstance(value, list):
        return None
    names = [_name(item) for item in value]
    return list(dict.fromkeys(names))


def _parsed(text: str, separator: str) -> list[object]:
    """Returns the list that a text spells."""
    if text.startswith("["):
        try:
            parsed = json.loads(text)
        except ValueError:
            parsed = None
        if isinstance(parsed, list):
            return parsed
    if not separator:
        raise _NoListError(
            'is no JSON list such as ["a", "b"], and data.label_separator, which separates its classes, is not set'
        )
    return list(text.split(separator))


def _decoded(value: object) -> object:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise _NoListError("holds bytes that are not UTF-8") from None
    return value


def _name(item: object) -> str:
    """Returns the class that an item of a list names."""
    item = _decoded(item)
    if not isinstance(item, str | int | float) or (isinstance(item, float) and math.isnan(item)):
        raise _NoListError("has an item that is no class name")
    name = str(item).lower() if isinstance(item, bool) else as_text(item)
    if not name or "\0" in name:
        raise _NoListError("has a class name with a NUL character" if name else "has an empty class name")
    return name


def check_classes(name: str, classes: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Returns the classes in order, the names of the columns that replace the label column.

    Args:
        name: the label column.
        classes: distinct classes of all rows.
        columns: names of the other columns.

    Raises:
        UserError: fewer than two classes, too many, or one that is also the name of another column.
    """
    if len(classes) < 2:
        only = f"only the class {classes[0]!r}" if classes else "no class in any row"
        raise UserError(
            f"label: {name!r} has {only}; a multilabel task has at least two. Check the column; for one class, write a column of "
            "0 and 1 with task: binary."
        )
    if len(classes) > MAX_CLASSES:
        raise UserError(
            f"label: {name!r} has more than {MAX_CLASSES} classes, for example {in_a_line(list(classes)[:5])}. Leave out rare "
            "ones, or check data.label_separator."
        )
    if taken := sorted({name, *columns} & set(classes)):
        raise UserError(
            f"label: {taken[0]!r} is a class of {name!r} and the name of a column, which its column of 0 and 1 would replace; "
            "rename one of them."
        )
    return sorted(classes)


def expanded(batch: pa.RecordBatch, name: str, classes: Sequence[str]) -> tuple[pa.RecordBatch, list[str]]:
    """Returns the batch with the label column, list<string>, replaced by an int64 column of 0 and 1 for each class.

    Also returns the classes of its rows that are not among the given ones.
    """
    lists = batch.column(name)
    index = pc.index_in(lists.flatten(), pa.array(classes, pa.string()))
    others = pc.unique(lists.flatten().filter(index.is_null())).to_pylist()
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    place = batch.schema.get_field_index(name)
    left = [i for i in range(batch.num_columns) if i != place]
    arrays, names = [batch.column(i) for i in left], [batch.schema.field(i) for i in left]
    found = index.to_numpy(zero_copy_only=False)
    for i, of in enumerate(classes):
        ones = np.zeros(batch.num_rows, np.int64)
        ones[parents[found == i]] = 1
        arrays.append(pa.array(ones))
        names.append(pa.field(of, pa.int64()))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(names)), others
