"""The type of a column over all its batches: missing < integer < float < string, or a list of one of these."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from components.errors import UserError

EMPTY, INTEGER, FLOAT, STRING = "empty", "integer", "float", "string"
_ORDER = (EMPTY, INTEGER, FLOAT, STRING)
_FIRST = 100
_ARROW = {EMPTY: pa.null(), INTEGER: pa.int64(), FLOAT: pa.float32(), STRING: pa.binary()}


@dataclass(frozen=True)
class ColumnType:
    """`kind` is one of the four above; `is_list` for columns that hold several values a row."""

    kind: str
    is_list: bool = False

    def widen(self, other: ColumnType) -> ColumnType:
        """Returns the narrowest type that holds both."""
        kind = max(self.kind, other.kind, key=_ORDER.index)
        return ColumnType(kind, self.is_list or other.is_list)


def observe(name: str, column: pa.Array, *, is_text: bool) -> ColumnType:
    """Returns the type of one batch of a column.

    Args:
        name: for the error.
        column: any Arrow type.
        is_text: strings are CSV text whose type is still to be found.

    Raises:
        UserError: the Arrow type has no place in a `tf.Example`.
    """
    kind = column.type
    if pa.types.is_null(kind) or column.null_count == len(column):
        return ColumnType(EMPTY)
    if _is_list(kind):
        # tf.Example knows lists only: one of at most one value is a plain column.
        longest = pc.max(pc.list_value_length(column)).as_py() or 0
        return ColumnType(observe(name, column.flatten(), is_text=False).kind, is_list=longest > 1)
    if pa.types.is_dictionary(kind):
        return observe(name, column.dictionary_decode(), is_text=is_text)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        return ColumnType(INTEGER)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return ColumnType(FLOAT)
    if _is_text(kind):
        return ColumnType(_type_of_text(column) if is_text else STRING)
    raise UserError(
        f"data: column {name!r} holds {kind}, which cannot be a feature; allowed: numbers, booleans, dates, text and lists "
        f"of them. Leave it out with data.exclude: [{name}]."
    )


def convert(column: pa.Array, target: ColumnType) -> pa.Array:
    """Returns the column as a list array (what `tf.Example` holds: 0..n values a row; a missing row is null).

    Dates become whole seconds since 1970 (UTC); NaN becomes missing; floats become float32, as `tf.Example` has them.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_list(column.type):
        column = column.cast(pa.list_(column.type.value_type)) if not pa.types.is_list(column.type) else column
        values = _cast(column.values, target.kind)
        mask = column.is_null() if column.null_count else None
        return pa.ListArray.from_arrays(column.offsets, values, mask=mask)
    values = _cast(column, target.kind)
    valid = values.is_valid()
    # One list of length one per present value: offsets count the valid ones.
    lengths = pc.cumulative_sum(valid.cast(pa.int32()))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), lengths])
    mask = pc.invert(valid) if values.null_count else None
    return pa.ListArray.from_arrays(offsets, values.drop_null(), mask=mask)


def _cast(values: pa.Array, kind: str) -> pa.Array:
    source = values.type
    if pa.types.is_temporal(source):
        if pa.types.is_date(source) or pa.types.is_timestamp(source):
            values = values.cast(pa.timestamp("s"), safe=False)
        values = values.cast(pa.int64(), safe=False)
    if _is_text(source) and kind in (INTEGER, FLOAT):
        values = pc.utf8_trim_whitespace(values.cast(pa.string()))
    elif kind == STRING and not _is_text(source):
        values = values.cast(pa.string())
    if pa.types.is_boolean(source) and kind == FLOAT:
        values = values.cast(pa.int8())
    if kind == INTEGER and not pa.types.is_temporal(source):
        return _whole_numbers(values)
    if kind == FLOAT:
        values = values.cast(pa.float64(), safe=False).cast(pa.float32(), safe=False)
        nan = pc.is_nan(values)
        return pc.if_else(nan, pa.scalar(None, pa.float32()), values) if pc.any(nan).as_py() else values
    return values.cast(_ARROW[kind], safe=False)


def _whole_numbers(values: pa.Array) -> pa.Array:
    """Floats and texts like 17.0 as integers. Raises ArrowInvalid for a fraction: nothing is cut off."""
    if pa.types.is_string(values.type):
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:
            values = values.cast(pa.float64())
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return values.cast(pa.int64())


def _type_of_text(column: pa.Array) -> str:
    text = pc.utf8_trim_whitespace(column)
    for kind, arrow in ((INTEGER, pa.int64()), (FLOAT, pa.float64())):
        try:
            # The first few by themselves: Arrow makes an error for each value that does not parse, 0.1 s for 200,000.
            text.slice(0, _FIRST).cast(arrow)
            text.cast(arrow)
        except pa.ArrowInvalid:
            continue
        return kind
    return STRING


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )
