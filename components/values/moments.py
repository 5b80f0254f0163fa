"""Converts dates, timestamps and times of day to counts of a unit."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.values import spelling
from switchyard.components.values.spelling import BOOLEAN, TIME, TIMESTAMP, UNITS
from switchyard.components.values.targets import Target, null_unless

_DAY = 86_400
_GENERATION = 30 * 365 * _DAY


def within_kind(values: pa.Array, target: Target) -> pa.Array:
    """Returns integers, null where they are not valid for a boolean, timestamp or time target."""
    if target.kind == BOOLEAN:
        return null_unless(pc.or_(pc.equal(values, 0), pc.equal(values, 1)), values)
    if target.kind in (TIMESTAMP, TIME):
        scale = UNITS[target.unit]
        low, high = (0, _DAY * scale - 1) if target.kind == TIME else _moments(target.counts, scale)
        low, high = max(low, -(2**63)), min(high, 2**63 - 1)
        return null_unless(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high)), values)
    return values


def _moments(counts: Sequence[int], scale: int) -> tuple[int, int]:
    """Returns the smallest and the largest count of a unit that are accepted as a timestamp."""
    if not counts:
        return spelling.FIRST_SECOND * scale, spelling.LAST_SECOND * scale
    return counts[0] - _GENERATION * scale, counts[1] + _GENERATION * scale


def counted(column: pa.Array) -> tuple[pa.Array, str]:
    """Returns dates, timestamps or times of day as int64 counts and their unit."""
    kind = column.type
    if pa.types.is_date32(kind):
        return pc.multiply(column.cast(pa.int32()).cast(pa.int64()), _DAY), "s"
    if pa.types.is_date64(kind):
        return column.cast(pa.int64()), "ms"
    integers = column.cast(pa.int32()).cast(pa.int64()) if pa.types.is_time32(kind) else column.cast(pa.int64())
    return integers, kind.unit


def in_unit(values: pa.Array, unit: str, wanted: str) -> pa.Array:
    """Returns counts converted to another unit; null where the result is not whole or exceeds 64 bits."""
    have, want = UNITS[unit], UNITS[wanted]
    if have == want:
        return values
    if have > want:
        factor = have // want
        divided = pc.divide(values, factor)
        return null_unless(pc.equal(pc.multiply(divided, factor), values), divided)
    factor = want // have
    most = (2**63 - 1) // factor
    held = null_unless(pc.and_(pc.less_equal(values, most), pc.greater_equal(values, -most)), values)
    return pc.multiply(held, factor)
