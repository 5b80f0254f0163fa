"""Batches of bounded size from Parquet files, regardless of their encodings.

A few bytes of Parquet can encode any number of rows of the same text and any number of columns without a value. Text columns
are therefore read dictionary-encoded, measured, and decoded in parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from switchyard.components.values.cells import is_list, is_text

_Table = TypeVar("_Table", pa.Table, pa.RecordBatch)
# Upper bounds on the rows, values and bytes of a batch. A single row may exceed them.
ROWS, CELLS, BYTES = 32_768, 16 << 20, 64 << 20


def rows_of(columns: int, width: int = 1) -> int:
    """Returns the largest number of rows for a batch of `columns` columns and at least `width` bytes per row."""
    return max(1, min(ROWS, CELLS // max(1, columns), BYTES // max(1, width)))


def parts_of(table: _Table, columns: int) -> Iterator[_Table]:
    """Yields slices of a table or batch, small enough for `columns` columns."""
    rows = rows_of(columns)
    for at in range(0, table.num_rows, rows):
        yield table.slice(at, rows)


def bounded_batches(file: pa.parquet.ParquetFile, source: Any) -> Iterator[pa.RecordBatch]:
    """Yields a file's batches in the file's own types; `source` is the path or stream that `file` was opened from."""
    leaves = [file.schema.column(i) for i in range(len(file.schema))]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    encoded = pa.parquet.ParquetFile(source, metadata=file.metadata, read_dictionary=texts)
    # Bytes per row of the fixed-length columns, decimals included.
    width = sum(leaf.length for leaf in leaves if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY")
    for batch in encoded.iter_batches(batch_size=rows_of(len(leaves), width)):
        if not texts:
            yield batch
            continue
        for part in _within(batch):
            yield part.cast(file.schema_arrow)


def _within(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.num_rows > 1 and sum(map(_text_bytes, batch.columns)) > BYTES:
        half = batch.num_rows // 2
        yield from _within(batch.slice(0, half))
        yield from _within(batch.slice(half))
    else:
        yield batch


def _text_bytes(column: pa.Array) -> int:
    """Returns the decoded size of a column's texts in bytes."""
    kind = column.type
    if pa.types.is_dictionary(kind) and is_text(kind.value_type):
        return pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0
    if is_list(kind):
        return _text_bytes(column.flatten())
    return sum(map(_text_bytes, column.flatten())) if pa.types.is_struct(kind) else 0
