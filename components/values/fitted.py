"""Converts whole columns to a target's type, as lists of values per row, and reports the rows that do not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.values.cells import fit_cells
from switchyard.components.values.targets import Target, arrow_type, is_list, reason_of

MISSING = "must not be missing"
_GAP = "must hold lists without gaps (null or NaN)"


@dataclass(frozen=True)
class Misfit:
    """A value that does not fit a column.

    Attributes:
        row: index in the column, from 0.
        value: value as received; None when it is missing.
        reason: what the column must hold.
    """

    row: int
    value: Any
    reason: str

    def sentence(self, name: str) -> str:
        """Returns the problem as one sentence without a full stop."""
        if self.reason == MISSING:
            return f"column {name!r} is missing"
        text = repr(self.value[:40]) if isinstance(self.value, str | bytes) else str(self.value)[:40]
        return f"column {name!r} {self.reason}, received {text}"


@dataclass(frozen=True)
class Fitted:
    """A column in a trained column's type.

    Attributes:
        values: list array of int64, float64 or binary, one list per row; null where a row is missing or does not fit.
        misfits: rows that do not fit, in order.
        words: texts that were read as missing -> count.
    """

    values: pa.Array
    misfits: list[Misfit]
    words: Mapping[str, int] = field(default_factory=dict)


def fit_target(column: pa.Array, target: Target) -> Fitted:
    """Returns a column of any Arrow type converted to a target; the number of values per row is not checked against a width."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if is_list(column.type):
        column = column.cast(pa.list_(column.type.value_type)) if not pa.types.is_list(column.type) else column
        if is_list(column.type.value_type):
            nested = [_misfit(column, i, target) for i in np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))]
            return Fitted(pa.nulls(len(column), pa.list_(arrow_type(target))), nested)
        return _fit_lists(column, target) if target.is_list else _fit_single(column, target)
    cells = fit_cells(column, target)
    bad = np.flatnonzero(pc.and_not(cells.values.is_null(), cells.absent).to_numpy(zero_copy_only=False))
    return Fitted(_lists_of_one(cells.values), [_misfit(column, i, target) for i in bad], cells.words)


def _lists_of_one(values: pa.Array) -> pa.Array:
    """Returns one list of one value per row, null where the value is missing."""
    valid = values.is_valid()
    lengths = pc.cumulative_sum(valid.cast(pa.int32()))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), lengths])
    mask = pc.invert(valid) if values.null_count else None
    return pa.ListArray.from_arrays(offsets, values.drop_null(), mask=mask)


def _fit_single(column: pa.Array, target: Target) -> Fitted:
    """Returns a list column as one value per row: a list of one is its value, an empty list is missing."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    one = lengths == 1
    places = np.cumsum(lengths) - lengths
    single = column.flatten().take(pa.array(places, pa.int64(), mask=~one))
    found = fit_target(single, dataclasses.replace(target, is_list=False))
    several = [Misfit(int(i), received(column[int(i)]), "must hold one value per row") for i in np.flatnonzero(lengths > 1)]
    return Fitted(found.values, sorted([*found.misfits, *several], key=lambda m: m.row), found.words)


def _fit_lists(column: pa.Array, target: Target) -> Fitted:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    flat = column.flatten()
    # `missing` applies to whole rows only: a missing word or empty text inside a list is a value.
    cells = fit_cells(flat, dataclasses.replace(target, missing=()))
    rows = np.repeat(np.arange(len(lengths)), lengths)
    values = cells.values
    misfits: list[Misfit] = []
    if values.null_count:
        wrong = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
        absent = cells.absent.to_numpy(zero_copy_only=False)
        first = {int(rows[i]): int(i) for i in wrong[::-1]}
        for row, i in sorted(first.items()):
            misfits.append(Misfit(row, received(column[row]), _GAP) if absent[i] else _misfit(flat, i, target, row))
        values = values.filter(pa.array(~np.isin(rows, list(first))))
        lengths = lengths.copy()
        lengths[list(first)] = 0
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    mask = pa.array(lengths == 0) if (lengths == 0).any() else None
    return Fitted(pa.ListArray.from_arrays(offsets, values, mask=mask), misfits)


def received(scalar: pa.Scalar) -> Any:
    """Returns a value of a column in Python's types; pyarrow gives half floats as NumPy's, which print as `np.float16(1.5)`."""
    value = scalar.as_py()
    return [_in_python(v) for v in value] if isinstance(value, list) else _in_python(value)


def _in_python(value: Any) -> Any:
    return value.item() if isinstance(value, np.number) else value


def _misfit(column: pa.Array, place: Any, target: Target, row: int | None = None) -> Misfit:
    try:
        value = received(column[int(place)])
    except (ValueError, OverflowError, pa.ArrowException):  # beyond the range of Python's types
        value = str(column[int(place)])
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return Misfit(int(place) if row is None else row, value, reason_of(value, target))
