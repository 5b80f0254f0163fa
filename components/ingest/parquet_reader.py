"""Reads Parquet files with their own types."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from switchyard.components.errors import UserError, first_line
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.batch_size import bounded_batches
from switchyard.components.ingest.reading import Batches, check_doubled, check_names, every_column, refusing
from switchyard.components.ingest.sources import open_file
from switchyard.components.values.cells import is_text


@refusing("Parquet")
def read_parquet(
    path: str,
    bad: BadRows,
    missing_values: Sequence[str] | None,
    *,
    reads: Callable[[str], bool] = every_column,
    keep: bool = False,
) -> Batches:
    """Yields batches with the file's own types. See `readers.reader` for the arguments."""
    with open_file(path) as raw:
        source = pa.PythonFile(raw, mode="r")
        try:
            file = pa.parquet.ParquetFile(source)
            names = file.schema_arrow.names
        except UnicodeDecodeError as error:
            raise UserError(f"data.path: {path}: the name of a column, {error.object!r:.60}, is not UTF-8. Rename it.") from None
        check_names(path, names)
        check_doubled(path, names)
        before = 0
        for batch in bounded_batches(file, source):
            yield _without_extensions(_valid(batch, path, before, reads, keep=keep))
            before += batch.num_rows


def _without_extensions(batch: pa.RecordBatch) -> pa.RecordBatch:
    if not any(isinstance(t, pa.BaseExtensionType) for t in batch.schema.types):
        return batch
    return pa.RecordBatch.from_arrays([_stored(c) for c in batch.columns], names=batch.schema.names)


def _stored(column: pa.Array) -> pa.Array:
    """Returns an Arrow extension column as its storage type; UUIDs as texts, as in other formats, and bool8 as booleans."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    if column.type.extension_name == "arrow.uuid":
        return pa.array([None if v is None else str(uuid.UUID(bytes=v)) for v in column.storage.to_pylist()], pa.string())
    return pc.not_equal(column.storage, 0) if column.type.extension_name == "arrow.bool8" else column.storage


def _valid(batch: pa.RecordBatch, path: str, before: int, reads: Callable[[str], bool], *, keep: bool) -> pa.RecordBatch:
    """Returns a batch whose values are valid for their types: Arrow does not check that Parquet strings are UTF-8.

    Raises:
        UserError: a column that is read has other values.
    """
    for place, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            if not reads(name):
                kept = column.cast(pa.binary()) if keep and is_text(column.type) else pa.nulls(len(column))
                batch = batch.set_column(place, name, kept)
                continue
            row = next((i for i in range(len(column)) if not _is_valid(column.slice(i, 1))), 0)
            raise UserError(
                f"data: {path}, row {before + row}: column {name!r} holds values that are not of its type, {column.type}: "
                f"{first_line(error)}. Write bytes as binary, or exclude it with data.exclude: [{name}]."
            ) from None
    return batch


def _is_valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
