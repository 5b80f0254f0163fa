"""Converts texts to a target's values, and other values to the spelling of a text column."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.values import spelling
from switchyard.components.values.moments import in_unit, within_kind
from switchyard.components.values.spelling import BOOLEAN, FLOAT, INTEGER
from switchyard.components.values.targets import EXACT, Target, arrow_type, is_moment, null_unless


def as_text(column: pa.Array) -> pa.Array:
    """Returns texts or bytes as UTF-8; invalid bytes become replacement characters, which only fit a text column."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([None if v is None else v.decode("utf-8", "replace") for v in column.cast(pa.binary()).to_pylist()])


def read_what_fits(text: pa.Array, target: Target) -> pa.Array:
    """Returns texts parsed as a target's values; null where a text does not fit."""
    try:
        return read(text, target)
    except pa.ArrowInvalid:
        pass
    encoded = text.dictionary_encode()
    found = [_read_one(encoded.dictionary.slice(i, 1), target) for i in range(len(encoded.dictionary))]
    return pa.array(found, arrow_type(target)).take(encoded.indices)


def _read_one(text: pa.Array, target: Target) -> Any:
    try:
        return read(text, target)[0].as_py()
    except pa.ArrowInvalid:
        return None


def read(text: pa.Array, target: Target) -> pa.Array:
    """Returns texts parsed as a target's values.

    Raises:
        pa.ArrowInvalid: a text does not fit.
    """
    if target.kind in (INTEGER, FLOAT):
        return _read_numbers(text, target)
    try:
        values, unit = spelling.read_texts(text, target.kind)
    except pa.ArrowInvalid:
        return _all_or_none(within_kind(_read_whole(text), target), text)
    return _all_or_none(in_unit(values, unit, target.unit) if unit else values, text)


def _read_numbers(text: pa.Array, target: Target) -> pa.Array:
    try:
        return spelling.read_texts(text, FLOAT)[0] if target.kind == FLOAT else _read_whole(text)
    except pa.ArrowInvalid:
        # Numeric targets accept booleans of typed formats, in training too, so their texts are accepted as well.
        return spelling.read_texts(text, BOOLEAN)[0].cast(arrow_type(target))


def _read_whole(text: pa.Array) -> pa.Array:
    try:
        return spelling.read_texts(text, INTEGER)[0]
    except pa.ArrowInvalid:
        values = spelling.read_texts(text, FLOAT)[0]
    exact = pc.and_(pc.equal(values, pc.trunc(values)), pc.less(pc.abs(values), float(EXACT)))
    return _all_or_none(null_unless(exact, values).cast(pa.int64(), safe=False), text)


def _all_or_none(values: pa.Array, text: pa.Array) -> pa.Array:
    if values.null_count > text.null_count:
        raise pa.ArrowInvalid("a text does not fit")
    return values


def written(column: pa.Array, target: Target) -> pa.Array | None:
    """Returns numbers, booleans and times as text in the column's observed style; null or None if it is unknown or ambiguous."""
    kind, of = column.type, pa.types
    if of.is_boolean(kind):
        style = spelling.one_style(target.spelled, spelling.BOOLEANS) if target.spelled is not None else "true"
        pair = {"true": ("true", "false"), "True": ("True", "False"), "TRUE": ("TRUE", "FALSE")}.get(style or "")
        return pc.if_else(column, *pair).cast(pa.binary()) if pair else None
    if is_moment(kind):
        return _written_times(column, target)
    if of.is_decimal(kind):
        return column.cast(pa.string()).cast(pa.binary()) if target.spelled is None else None
    if of.is_integer(kind) or of.is_floating(kind):
        return _written_numbers(column, target)
    return None


def _written_numbers(column: pa.Array, target: Target) -> pa.Array | None:
    seen = {"5"} if target.spelled is None else set(target.spelled) & set(spelling.NUMBERS)
    if not seen or "05" in seen or {"5", "5.0"} <= seen:
        return None
    if pa.types.is_floating(column.type):
        fractional = column.cast(pa.string())
        values = column.cast(pa.float64())
        exact = pc.and_(pc.equal(values, pc.trunc(values)), pc.less(pc.abs(values), float(EXACT)))
        digits = null_unless(exact, values).cast(pa.int64()).cast(pa.string())
        there = null_unless(pc.invert(pc.is_nan(values)), fractional)
        written = pc.coalesce(pc.binary_join_element_wise(digits, ".0", "") if "5.0" in seen else digits, there)
    else:
        written = column.cast(pa.string())
        written = pc.binary_join_element_wise(written, ".0", "") if "5.0" in seen else written
    return written.cast(pa.binary())


def _written_times(column: pa.Array, target: Target) -> pa.Array | None:
    kind = column.type
    family = spelling.TIMES if pa.types.is_time(kind) else spelling.DATES if pa.types.is_date(kind) else spelling.MOMENTS
    style = spelling.one_style(target.spelled, family) if target.spelled is not None else family[0]
    if style is None:
        return None
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.timestamp(kind.unit))
    text = (column.cast(pa.date32()) if pa.types.is_date64(kind) else column).cast(pa.string())
    if not pa.types.is_date(kind):
        text = pc.replace_substring_regex(text, r"(\.\d*?)0+$", r"\1")
        text = pc.replace_substring_regex(text, r"\.$", "")
    return (pc.replace_substring(text, " ", "T") if "T" in style else text).cast(pa.binary())
