"""Unwraps columns of one value per row from lists and encodings, and checks their values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError
from switchyard.components.values.cells import counted, is_list, is_moment, is_text, plain
from switchyard.components.values.spelling import FIRST_SECOND, LAST_SECOND, UNITS

_DAY = 86_400


def one_a_row(column: pa.Array) -> pa.Array:
    """Returns lists (of at most one value, as in `tf.Example`) and encoded columns as plain values, one per row."""
    if is_list(column.type) and pa.types.is_null(column.type.value_type):
        return pa.nulls(len(column))
    if is_list(column.type):
        lengths = pc.fill_null(pc.list_value_length(column), 0)
        column = pc.list_element(pc.if_else(pc.greater(lengths, 0), column, pa.scalar([None], column.type)), 0)
    return plain(column)


def longest(column: pa.Array) -> int:
    """Returns the number of values in the longest row; 1 for a column without lists."""
    return (pc.max(pc.list_value_length(column)).as_py() or 0) if is_list(column.type) else 1


def check_values(column: pa.Array, key: str, name: str, file: str, first: int, *, text: bool) -> None:
    """Checks that dates and times exist in the calendar and, with `text`, that bytes are UTF-8.

    Needed for columns whose values are converted to Python objects one by one.

    Args:
        column: array of any Arrow type.
        key: config key for the error.
        name: name of the column.
        file: name of the column's file.
        first: row number of the column's first value in the file.
        text: True when bytes must be UTF-8.

    Raises:
        UserError: a value fails the check.
    """
    if longest(column) > 1:
        return  # `labelled` and `check_keys` raise for lists
    column = one_a_row(column)
    if is_moment(column.type):
        counts, unit = counted(column)
        low, high = (0, _DAY - 1) if pa.types.is_time(column.type) else (FIRST_SECOND + _DAY, LAST_SECOND - _DAY)
        seconds = counts.to_numpy(zero_copy_only=False) / UNITS[unit]
        bad = np.flatnonzero((np.floor(seconds) < low) | (np.floor(seconds) > high))
        what, fix = f"a {column.type} outside the calendar: {counts[int(bad[0])].as_py() if len(bad) else ''} {unit}", "Fix it"
    elif text and is_text(column.type) and not _are_texts(column):
        values = column.cast(pa.binary()).to_pylist()
        bad = np.flatnonzero([v is not None and not _are_texts(pa.array([v])) for v in values])
        shown = values[int(bad[0])][:40] if len(bad) else b""
        what, fix = f"bytes that are not UTF-8 text: {shown!r}", "Write its values as text or numbers"
    else:
        return
    if len(bad):
        raise UserError(f"{key}: {file}, row {first + int(bad[0])}: {name!r} holds {what}. {fix}, or choose another column.")


def _are_texts(column: pa.Array) -> bool:
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True
