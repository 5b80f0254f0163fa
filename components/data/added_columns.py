"""Columns that a format adds to a table: the index that a library stores, a first column without a name."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

# pandas and pandas on Spark store an index without a name under these.
_STORED = re.compile(r"__index_level_[0-9]{1,3}__|__natural_order__")
# A CSV of pandas and of R begins with a column without a name; read and written once more, pandas gives it one of these.
UNNAMED = ""
_PANDAS_UNNAMED = re.compile(r"Unnamed: 0(\.[0-9]+)*")
_IN_ORDER = 0.9
_FEWEST = 20


def may_be_added(name: str) -> bool:
    """Whether a column that a model does not know may be one that a format added."""
    return name == UNNAMED or any(pattern.fullmatch(name) for pattern in (_PANDAS_UNNAMED, _STORED))


def is_added(name: str, values: pa.Array) -> bool:
    """Whether a format added a column, by its name and, where that could be a person's, by its first values."""
    if name == UNNAMED:
        return _counts_rows(values) or _names_rows(values)
    return _counts_rows(values) if _PANDAS_UNNAMED.fullmatch(name) else may_be_added(name)


def _counts_rows(values: pa.Array) -> bool:
    """Whole numbers of which each is another, or that mostly go up by one (tables that were put behind one another)."""
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
    """From 0 or 1 without a gap, and no number more often than the one before: tables that were put together and mixed."""
    counted = pc.value_counts(numbers)
    order = pc.array_sort_indices(counted.field(0))
    values, often = counted.field(0).take(order), counted.field(1).take(order)
    first, last = values[0].as_py(), values[-1].as_py()
    if first not in (0, 1) or last - first + 1 != len(values) or len(values) < _FEWEST:
        return False
    return bool(pc.all(pc.less_equal(often.slice(1), often.slice(0, len(often) - 1))).as_py())


def _names_rows(values: pa.Array) -> bool:
    """R's names of rows: texts, each another."""
    if values.null_count or not len(values) or not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return False
    try:
        values.cast(pa.float64())
    except pa.ArrowInvalid:
        return bool(pc.count_distinct(values).as_py() == len(values))
    return False
