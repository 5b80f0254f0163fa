"""Converts one column of JSON values of any types to an Arrow array."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from switchyard.components.values.base64_values import as_json, holds_bytes, may_hold_bytes, unwrapped
from switchyard.components.values.conversion import typed_rows
from switchyard.components.values.spelling import MISSING_WORDS, clash, styles
from switchyard.components.values.targets import EXACT

_NOT_ONE_TYPE = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)
_NUMBERS = frozenset({bool, int, float})


class MixedColumnError(ValueError):
    """Error for values that no column can hold together; `row` is the index of the first offending value."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


# Metadata key of a text field that holds numbers and missing words only; its type is inferred as for a CSV.
UNTYPED = b"untyped"


def json_column(name: str, values: list[Any], missing: Sequence[str]) -> tuple[pa.Array, pa.Field]:
    """Returns the column and its field, whose metadata marks the rows whose values were no texts.

    Numbers beside other texts become texts; the form of each value does not depend on its neighbours.

    Raises:
        MixedColumnError: lists of several types or beside other values, objects, or one number spelled in two ways.
    """
    try:
        column = pa.array(values)
        if not may_hold_bytes(column.type):
            return _with_field(name, column)
    except _NOT_ONE_TYPE:
        column = None
    values = [None if isinstance(v, float) and math.isnan(v) else v for v in values]
    if holds_bytes(values):
        column = _bytes(unwrapped(values))
    if column is not None:
        return _with_field(name, column)
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= _NUMBERS:
        return _with_field(name, _numbers(values))
    if not kinds <= _NUMBERS | {str}:
        return _with_field(name, _lists(values))
    words = {*MISSING_WORDS, *missing}
    texts = [v for v in values if isinstance(v, str) and v.strip() not in words]
    written = [v if v is None or isinstance(v, str) else _written(v) for v in values]
    typed = typed_rows([v is not None and not isinstance(v, str) for v in values])
    if texts:
        _check_spelling(values, written, texts)
        return _with_field(name, pa.array(written, pa.string()), typed)
    # Keep the decimal point: 5.0 beside a missing word is a float, as it is beside a null.
    spelled = [json.dumps(v) if isinstance(v, float) else w for v, w in zip(values, written, strict=True)]
    return _with_field(name, pa.array(spelled, pa.string()), {UNTYPED: b"1", **typed})


def as_texts(values: Sequence[Any]) -> pa.Array:
    """Returns values of any types as texts: texts as they are, bytes as base64, others as JSON."""

    def plain(value: Any) -> Any:
        return as_json(value) if isinstance(value, bytes) else str(value)

    return pa.array([v if v is None or isinstance(v, str) else json.dumps(v, default=plain) for v in values], pa.string())


def _bytes(values: list[Any]) -> pa.Array:
    """Returns the values as bytes; texts are encoded as UTF-8."""
    plain = [_encoded(v) for v in values]
    for i, value in enumerate(plain):
        if not all(v is None or isinstance(v, bytes) for v in (value if isinstance(value, list) else [value])):
            raise MixedColumnError('holds {"b64": ...} that is not valid base64, or bytes mixed with values other than text', i)
    try:
        return pa.array(plain)
    except _NOT_ONE_TYPE:
        return pa.array([v if v is None or isinstance(v, list) else [v] for v in plain])


def _encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_encoded(v) for v in value]
    return value.encode() if isinstance(value, str) else value


def _with_field(name: str, column: pa.Array, metadata: dict[bytes, bytes] | None = None) -> tuple[pa.Array, pa.Field]:
    return column, pa.field(name, column.type, metadata=metadata)


def _numbers(values: list[Any]) -> pa.Array:
    """Returns numbers of several types as one array; integers beyond 64 bits get their own type, see `column_types.BEYOND`."""
    if any(isinstance(v, float) for v in values):
        return pa.array([None if v is None else _nearest(v) for v in values], pa.float64())
    whole = [None if v is None else int(v) for v in values]
    there = [v for v in whole if v is not None]
    if all(-(2**63) <= v < 2**63 for v in there):
        return pa.array(whole, pa.int64())
    if all(0 <= v < 2**64 for v in there):
        return pa.array(whole, pa.uint64())
    digits = max(len(str(abs(v))) for v in there)
    if digits > 76:
        row = next(i for i, v in enumerate(whole) if v is not None and len(str(abs(v))) == digits)
        raise MixedColumnError(f"holds a whole number of {digits} digits", row)
    return pa.array([None if v is None else str(v) for v in whole], pa.string()).cast(pa.decimal256(76, 0))


def _nearest(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _lists(values: list[Any]) -> pa.Array:
    """Returns lists of numbers of several types; a single value becomes a list of one."""
    lists = [v if v is None or isinstance(v, list) else [v] for v in values]
    try:
        return pa.array(lists)
    except _NOT_ONE_TYPE:
        pass
    for i, row in enumerate(lists):
        if row is not None and not all(v is None or type(v) in _NUMBERS for v in row):
            raise MixedColumnError("holds lists of several types, lists mixed with text, or objects", i)
    return pa.array([None if row is None else [None if v is None else _nearest(v) for v in row] for row in lists])


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    return json.dumps(value) if isinstance(value, float) else str(value)


def _check_spelling(values: list[Any], written: list[Any], texts: list[str]) -> None:
    numbers = [w for v, w in zip(values, written, strict=True) if v is not None and not isinstance(v, str)]
    if two := clash(styles(pa.array(numbers, pa.string())), styles(pa.array(texts, pa.string()))):
        row = next(i for i, v in enumerate(values) if v is not None and not isinstance(v, str))
        raise MixedColumnError(
            f"holds numbers or booleans mixed with text such as {two[1]}, so that one value could appear as two", row
        )
