"""Detects columns that a format or library added to a table: a stored index or an unnamed first column."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

# Column names that pandas and pandas on Spark use for a stored index without a name.
_STORED = re.compile(r"__index_level_[0-9]{1,3}__|__natural_order__")
# CSVs of pandas and R begin with an unnamed column. Read and written again, pandas names it by this pattern.
UNNAMED = ""
_PANDAS_UNNAMED = re.compile(r"Unnamed: 0(\.[0-9]+)*")
_IN_ORDER = 0.9
_FEWEST = 20


def may_be_added(name: str) -> bool:
    """Returns whether a column of this name, unknown to a model, may have been added by a format."""
    return name == UNNAMED or any(pattern.fullmatch(name) for pattern in (_PANDAS_UNNAMED, _STORED))


def is_added(name: str, values: pa.Array) -> bool:
    """Returns whether a format added a column, by its name and, if that is ambiguous, by its first values."""
    if name == UNNAMED:
        return _counts_rows(values) or _names_rows(values)
    return _counts_rows(values) if _PANDAS_UNNAMED.fullmatch(name) else may_be_added(name)


def _counts_rows(values: pa.Array) -> bool:
    """Returns whether values are distinct whole numbers, or mostly increase by one (concatenated tables)."""
    try:
        numbers = values.cast(pa.float64()).cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    if numbers.null_count or not len(numbers):
        return False
    if pc.count_distinct(numbers).as_py() == len(numbers) or _counts_tables(numbers):
        return True
    steps = pc.subtract(numbers.slice(1), numbers.slice(0, len(numbers) - 1))
    return bool(pc.mean(pc.equal(steps, 1).cast(pa.float64())).as_py() >= _IN_ORDER)


def _counts_tables(numbers: pa.Array) -> bool:
    """Returns whether numbers start at 0 or 1 without gaps, with counts that never increase (tables merged and shuffled)."""
    counted = pc.value_counts(numbers)
    order = pc.array_sort_indices(counted.field(0))
    values, often = counted.field(0).take(order), counted.field(1).take(order)
    first, last = values[0].as_py(), values[-1].as_py()
    if first not in (0, 1) or last - first + 1 != len(values) or len(values) < _FEWEST:
        return False
    return bool(pc.all(pc.less_equal(often.slice(1), often.slice(0, len(often) - 1))).as_py())


def _names_rows(values: pa.Array) -> bool:
    """Returns whether values are R's row names: distinct texts."""
    if values.null_count or not len(values) or not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return False
    try:
        values.cast(pa.float64())
    except pa.ArrowInvalid:
        return bool(pc.count_distinct(values).as_py() == len(values))
    return False
