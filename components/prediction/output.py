"""Combines the parts of a batch prediction into one file in input order, with one part in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from switchyard.components.errors import UserError
from switchyard.components.ingest.batch_size import parts_of
from switchyard.components.ingest.json_columns import as_texts
from switchyard.components.ingest.scalars import longest, one_a_row
from switchyard.components.ingest.sources import TSV, ending_of
from switchyard.components.values.base64_values import as_json
from switchyard.components.values.targets import is_list

# Format -> its name in errors.
_WITHOUT_OBJECTS = {"csv": "CSV", "tfrecord": "TFRecord"}
Write = Callable[[pa.Table], None]


def assemble(parts: Sequence[Path], target: Path, kind: str) -> int:
    """Writes all parts to `target`, atomically by a rename; returns the number of rows.

    Raises:
        UserError: the format does not support a column's values.
    """
    schema = _common(parts)
    if kind in _WITHOUT_OBJECTS:
        for written in (schema, *(_schema(p) for p in parts if kind == "csv")):
            _check_objects(written, _WITHOUT_OBJECTS[kind])
    if kind == "csv":
        schema = pa.schema([pa.field(f.name, _csv_type(f)) for f in schema])
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    rows = 0
    try:
        with (_tsv if ending_of(str(target)) == TSV else _WRITERS[kind])(draft, schema) as write:
            for part in parts:
                # Columns that only other parts have are filled with nulls, so a part can grow; split it.
                for table in parts_of(pa.parquet.read_table(part), len(schema)):
                    write(pa.table([_cast(table, f, to_csv=kind == "csv") for f in schema], schema=schema))
                    rows += table.num_rows
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    return rows


def _check_objects(schema: pa.Schema, name: str) -> None:
    """Raises UserError for a column of objects, or of lists of lists or objects."""
    for field in schema:
        inner = field.type.value_type if is_list(field.type) else field.type
        if pa.types.is_nested(inner):
            what = "lists of lists or objects" if is_list(field.type) else "objects"
            raise UserError(f"column {field.name!r} holds {what}, which {name} does not support. Write .parquet or .jsonl.")


def _schema(part: Path) -> pa.Schema:
    return pa.parquet.read_schema(part).remove_metadata()


def _common(parts: Sequence[Path]) -> pa.Schema:
    schemas = [_schema(p) for p in parts]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        # A column of JSON Lines can have different types in different parts; write it as text.
        names = list(dict.fromkeys(name for s in schemas for name in s.names))
        types = {n: {s.field(n).type for s in schemas if n in s.names} for n in names}
        return pa.schema([pa.field(n, types[n].pop() if len(types[n]) == 1 else pa.string()) for n in names])


def _cast(table: pa.Table, field: pa.Field, *, to_csv: bool) -> Any:
    if field.name not in table.column_names:
        return pa.nulls(table.num_rows, field.type)
    column = table[field.name].combine_chunks()
    if pa.types.is_nested(column.type) and pa.types.is_string(field.type) and not to_csv:
        return as_texts(column.to_pylist())  # other parts have other values
    if is_list(column.type) and not is_list(field.type):
        if longest(column) > 1:
            raise UserError(f"column {field.name!r} holds lists, which CSV does not support. Write .parquet or .jsonl.")
        column = one_a_row(column)
    if pa.types.is_null(column.type):
        return pa.nulls(table.num_rows, field.type)
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        if not (pa.types.is_binary(column.type) and pa.types.is_string(field.type)):
            raise
        raise UserError(
            f"column {field.name!r} holds bytes that are not UTF-8 text, which CSV does not support. Write .parquet, "
            ".tfrecord or .jsonl."
        ) from error


def _csv_type(field: pa.Field) -> pa.DataType:
    kind = field.type.value_type if is_list(field.type) else field.type
    return pa.string() if pa.types.is_binary(kind) or pa.types.is_null(kind) else kind


@contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[Write]:
    with pa.parquet.ParquetWriter(path, schema) as writer:
        yield writer.write_table


@contextmanager
def _csv(path: Path, schema: pa.Schema) -> Iterator[Write]:
    with pa.csv.CSVWriter(path, schema) as writer:
        yield writer.write_table


@contextmanager
def _tsv(path: Path, schema: pa.Schema) -> Iterator[Write]:
    with pa.csv.CSVWriter(path, schema, write_options=pa.csv.WriteOptions(delimiter="\t")) as writer:
        yield writer.write_table


@contextmanager
def _jsonl(path: Path, schema: pa.Schema) -> Iterator[Write]:
    def plain(value: Any) -> Any:
        return as_json(value) if isinstance(value, bytes) else str(value)

    with open(path, "wb") as file:
        yield lambda table: file.writelines(orjson.dumps(row, default=plain) + b"\n" for row in _rows(table))


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for row in table.to_pylist():
        yield {k: [_text(x) for x in v] if isinstance(v, list) else _text(v) for k, v in row.items()}


def _text(value: Any) -> Any:
    return as_json(value) if isinstance(value, bytes) else value


@contextmanager
def _tfrecord(path: Path, schema: pa.Schema) -> Iterator[Write]:
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    from switchyard.components.ingest.column_types import convert, observe

    encoder = RecordBatchToExamplesEncoder()
    with tf.io.TFRecordWriter(str(path)) as writer:

        def write(table: pa.Table) -> None:
            for batch in table.to_batches():
                columns = {
                    n: convert(c, observe(n, c, is_text=False)) for n, c in zip(batch.schema.names, batch.columns, strict=True)
                }
                for record in encoder.encode(pa.RecordBatch.from_pydict(columns)):
                    writer.write(record)

        yield write


_WRITERS: dict[str, Any] = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl, "tfrecord": _tfrecord}
