"""Converts single values column-wise to a target's type, by the rules of `components.values.conversion`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.values import spelling
from switchyard.components.values.moments import counted, in_unit, within_kind
from switchyard.components.values.spelling import FLOAT, INTEGER, TEXT, TIME, TIMESTAMP, UNITS
from switchyard.components.values.targets import (
    FLOAT32_MAX,
    Target,
    any_true,
    arrow_type,
    is_list,
    is_moment,
    is_text,
    null_unless,
    number_of,
    plain,
    reason_of,
)
from switchyard.components.values.text_cells import as_text, read, read_what_fits, written

__all__ = [
    "FLOAT32_MAX", "Cells", "Target", "arrow_type", "as_text", "counted", "fit_cells", "is_list", "is_moment", "is_text",
    "number_of", "plain", "reason_of",
]  # fmt: skip


@dataclass(frozen=True)
class Cells:
    """Converted values; values that do not fit are null and not `absent`.

    Attributes:
        values: int64, float64 or binary array.
        absent: mask of the missing values.
        words: texts that were read as missing -> count.
    """

    values: pa.Array
    absent: pa.Array
    words: Mapping[str, int] = field(default_factory=dict)


def fit_cells(column: pa.Array, target: Target) -> Cells:
    """Returns the converted values of a column of any Arrow type except lists."""
    column = plain(column)
    kind = column.type
    if is_text(kind):
        return _from_text(column, target)
    absent = column.is_null(nan_is_null=True)
    values = _from_typed(column, target)
    if values is None:
        return Cells(pa.nulls(len(column), arrow_type(target)), absent)
    return _numbers(values, absent, target)


def _from_typed(column: pa.Array, target: Target) -> pa.Array | None:
    """Returns numbers, booleans and times in the target's type; None when none of them fits."""
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), arrow_type(target))
    if target.kind == TEXT:
        return written(column, target)
    found = next((convert for is_it, convert in _CONVERTERS if is_it(column.type)), None)
    return found(column, target) if found else None


def _from_booleans(column: pa.Array, target: Target) -> pa.Array | None:
    return None if target.kind in (TIMESTAMP, TIME) else column.cast(pa.int8()).cast(arrow_type(target))


def _from_integers(column: pa.Array, target: Target) -> pa.Array:
    if target.kind == FLOAT:
        return column.cast(pa.float64(), safe=False)
    values = column.cast(pa.int64(), safe=False)
    if pa.types.is_uint64(column.type):
        values = null_unless(pc.less_equal(column, pa.scalar(2**63 - 1, pa.uint64())), values)
    return within_kind(values, target)


def _from_floats(column: pa.Array, target: Target) -> pa.Array:
    values = column.cast(pa.float64())
    if target.kind == FLOAT:
        return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values) if any_true(pc.is_nan(values)) else values
    whole = pc.and_(pc.equal(values, pc.trunc(values)), pc.and_(pc.greater_equal(values, -(2.0**63)), pc.less(values, 2.0**63)))
    return within_kind(null_unless(whole, values).cast(pa.int64(), safe=False), target)


def _from_decimals(column: pa.Array, target: Target) -> pa.Array:
    if target.kind == FLOAT:
        return column.cast(pa.float64(), safe=False)
    whole = [None if v is None or v != int(v) or not -(2**63) <= v < 2**63 else int(v) for v in column.to_pylist()]
    return within_kind(pa.array(whole, pa.int64()), target)


def _from_times(column: pa.Array, target: Target) -> pa.Array | None:
    counts, unit = counted(column)
    is_time = pa.types.is_time(column.type)
    if target.kind == (TIME if is_time else TIMESTAMP):
        return in_unit(counts, unit, target.unit)
    if target.unknown:
        values = counts if is_time else spelling.floor_divided(counts, UNITS[unit])
        return values.cast(arrow_type(target), safe=False)
    return None


_CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array, Target], pa.Array | None]], ...] = (
    (pa.types.is_boolean, _from_booleans),
    (pa.types.is_integer, _from_integers),
    (pa.types.is_floating, _from_floats),
    (pa.types.is_decimal, _from_decimals),
    (is_moment, _from_times),
)


def _from_text(column: pa.Array, target: Target) -> Cells:
    if target.kind == TEXT:
        values = column.cast(pa.binary())
        if target.missing:
            listed = _means_missing(column, values, target)
            values = null_unless(pc.invert(listed), values) if any_true(listed) else values
        return Cells(values, values.is_null())
    text = pc.utf8_trim_whitespace(as_text(column))
    words: dict[str, int] = {}
    try:
        values = read(text, target)
    except pa.ArrowInvalid:
        listed = pc.is_in(text, spelling.words(target.missing))
        if any_true(listed):
            counts = pc.value_counts(text.filter(listed))
            words = dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True))
            text = null_unless(pc.invert(listed), text)
        values = read_what_fits(text, target)
    absent = text.is_null()
    if target.kind == FLOAT:
        nan = pc.fill_null(pc.is_nan(values), False)
        absent, values = pc.or_(absent, nan), null_unless(pc.invert(nan), values) if any_true(nan) else values
    cells = _numbers(values, absent, target)
    return Cells(cells.values, cells.absent, words)


def _means_missing(column: pa.Array, values: pa.Array, target: Target) -> pa.Array:
    """Returns a mask of the texts that mean missing, by the rule of `spelling.missing_test`."""
    listed = pc.is_in(values, pa.array([m.encode() for m in target.missing], pa.binary()))
    words = [m.strip() for m in target.missing if m.strip()]
    return pc.or_(listed, pc.is_in(pc.utf8_trim_whitespace(as_text(column)), pa.array(words, pa.string()))) if words else listed


def _numbers(values: pa.Array, absent: pa.Array, target: Target) -> Cells:
    """Returns numbers with those listed in `missing` (infinity included) as missing; others beyond the limit do not fit."""
    cells = _without_listed(values, absent, target)
    if target.kind != FLOAT or target.limit == math.inf:
        return cells
    return Cells(null_unless(pc.less_equal(pc.abs(cells.values), target.limit), cells.values), cells.absent)


def _without_listed(values: pa.Array, absent: pa.Array, target: Target) -> Cells:
    """Returns numbers with those whose value `missing` lists as missing, in any spelling."""
    if not target.missing or target.kind not in (INTEGER, FLOAT):
        return Cells(values, absent)
    numbers = _listed_integers(target) if target.kind == INTEGER else _listed_floats(target)
    listed = pc.is_in(values, numbers) if len(numbers) else pa.array([])
    if not len(numbers) or not any_true(listed):
        return Cells(values, absent)
    return Cells(null_unless(pc.invert(listed), values), pc.or_(absent, listed))


def _listed_integers(target: Target) -> pa.Array:
    """Returns the whole numbers in `missing`, exactly: float64 holds them up to 2^53 only."""
    exact = [Decimal(m.strip()) for m in target.missing if number_of(m) is not None]
    return pa.array([int(n) for n in exact if n == n.to_integral_value() and -(2**63) <= n < 2**63], pa.int64())


def _listed_floats(target: Target) -> pa.Array:
    """Returns the numbers in `missing`, together with their float32 values."""
    numbers = [n for n in map(number_of, target.missing) if n is not None]
    with np.errstate(over="ignore"):
        return pa.array([*numbers, *(float(np.float32(n)) for n in numbers)], pa.float64())
