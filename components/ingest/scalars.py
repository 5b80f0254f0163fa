"""Columns of one value a row, whatever a format wraps them in."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from components.cells import is_list, plain


def one_a_row(column: pa.Array) -> pa.Array:
    """Returns lists (of at most one value, as `tf.Example` has them) and encodings as their values, one a row."""
    if is_list(column.type):
        lengths = pc.fill_null(pc.list_value_length(column), 0)
        column = pc.list_element(pc.if_else(pc.greater(lengths, 0), column, pa.scalar([None], column.type)), 0)
    return plain(column)


def longest(column: pa.Array) -> int:
    """Returns how many values the longest row holds; 1 for what holds no lists."""
    return (pc.max(pc.list_value_length(column)).as_py() or 0) if is_list(column.type) else 1
