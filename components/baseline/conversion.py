"""Raw values in a trained column's type, without loss or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.model_bundle import RawFeature

_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


@dataclass(frozen=True)
class Misfit:
    """A value that has no place in a column's type: its row, itself, why."""

    row: int
    value: Any
    reason: str


@dataclass(frozen=True)
class Fitted:
    """Values in a column's type, null where they do not fit, and those that do not."""

    values: pa.Array
    misfits: list[Misfit]


def fit(column: pa.Array, feature: RawFeature) -> Fitted:
    """Returns the values of a column, one a row, in a trained feature's type."""
    if feature.dtype == "string":
        return _texts(column)
    return _numbers(column, whole=feature.dtype == "int64")


def _texts(column: pa.Array) -> Fitted:
    if pa.types.is_floating(column.type):
        bad = column.is_valid().to_numpy(zero_copy_only=False)
        return Fitted(pa.nulls(len(column), pa.large_binary()), _misfits(column, bad, "is a number where text was trained on"))
    text = column.cast(pa.large_string()) if pa.types.is_integer(column.type) else column
    return Fitted(text.cast(pa.large_binary()), [])


def _numbers(column: pa.Array, *, whole: bool) -> Fitted:
    wanted = pa.int64() if whole else pa.float32()
    if pa.types.is_integer(column.type):
        return Fitted(column.cast(wanted, safe=False), [])
    numbers, misfits = column, []
    if not pa.types.is_floating(column.type):
        text = column.cast(pa.large_binary()).cast(pa.large_string())
        bad = ~pc.fill_null(pc.match_substring_regex(text, _NUMBER), True).to_numpy(zero_copy_only=False)
        misfits += _misfits(column, bad, "is no number")
        numbers = _null_where(bad, text).cast(pa.float64())
    if whole:
        cells = numbers.to_numpy(zero_copy_only=False)
        there = numbers.is_valid().to_numpy(zero_copy_only=False)
        bad = there & ~((cells == np.trunc(cells)) & (np.abs(cells) < 2.0**63))
        misfits += _misfits(column, bad, "is no whole number, as it was in training")
        numbers = _null_where(bad, numbers)
    return Fitted(numbers.cast(wanted, safe=False), misfits)


def _null_where(bad: np.ndarray, values: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(bad), pa.scalar(None, values.type), values)


def _misfits(column: pa.Array, bad: np.ndarray, why: str) -> list[Misfit]:
    return [Misfit(int(i), column[int(i)].as_py(), why) for i in np.flatnonzero(bad)]
