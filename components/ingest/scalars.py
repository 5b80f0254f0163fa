"""Columns of one value a row, whatever a format wraps them in."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def one_a_row(column: pa.Array) -> pa.Array:
    """Returns lists (of at most one value, as `tf.Example` has them) and dictionaries as their values, one a row."""
    if is_list(column.type):
        lengths = pc.fill_null(pc.list_value_length(column), 0)
        column = pc.list_element(pc.if_else(pc.greater(lengths, 0), column, pa.scalar([None], column.type)), 0)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def longest(column: pa.Array) -> int:
    """Returns how many values the longest row holds; 1 for what holds no lists."""
    return (pc.max(pc.list_value_length(column)).as_py() or 0) if is_list(column.type) else 1


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds texts or bytes."""
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(holds(kind) for holds in texts)
