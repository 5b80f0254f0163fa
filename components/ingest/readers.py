"""One reader per format: a file in, Arrow record batches out, in bounded memory. Values are not converted yet."""

from __future__ import annotations

import csv
import io
import json
import mmap
import os
import struct
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from components.errors import UserError
from components.ingest.bad_rows import BadRows
from components.ingest.batch_size import BYTES, bounded_batches, rows_of
from components.ingest.csv_options import DEFAULTS, CsvOptions, csv_head, csv_stream, undecodable
from components.ingest.json_columns import UNTYPED, MixedColumnError, json_column
from components.ingest.sources import is_local, open_file

_CSV_BLOCK = 8 << 20
_HEADER_BYTES = 1 << 20
# Of a line of JSON. What a compressed file unpacks to has no end of its own.
_LINE_BYTES = 64 << 20
_RECORDS_AT_ONCE = 1024
# A TFRecord's record: its length, the length's checksum, its bytes, their checksum.
_LENGTH, _FRAME = struct.Struct("<Q"), 8 + 4 + 4

Batches = Generator[pa.RecordBatch, None, None]
Reader = Callable[[str, BadRows, Sequence[str] | None], Batches]


def is_untyped(field: pa.Field) -> bool:
    """Whether a field's texts are numbers and words that mean missing: their type is to be found as a CSV's is."""
    return bool(field.metadata) and UNTYPED in field.metadata


def reader(kind: str, options: CsvOptions) -> Reader:
    """Returns the reader of a format; the options are for CSVs."""
    return partial(read_csv, options=options) if kind == "csv" else READERS[kind]


def read_csv(path: str, bad: BadRows, missing_values: Sequence[str] | None, options: CsvOptions = DEFAULTS) -> Batches:
    """Yields batches of string columns; rows with the wrong number of fields or not UTF-8 go to `bad`. An empty cell is null."""
    names = _header(path, options)

    def ragged(row: Any) -> str:
        bad.add(path, f"{row.actual_columns} fields where the header has {row.expected_columns}", str(row.text))
        return "skip"

    try:
        with csv_stream(path, options) as raw:
            rows = pa.csv.open_csv(
                raw,
                # One thread: with several, the row handler is called from threads that wait on one another.
                read_options=pa.csv.ReadOptions(block_size=_CSV_BLOCK, use_threads=False),
                parse_options=pa.csv.ParseOptions(
                    delimiter=options.separator, newlines_in_values=True, invalid_row_handler=ragged
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.binary()),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                    # What else means missing depends on the column's type, which is not known here.
                    null_values=[""],
                ),
            )
            for batch in rows:
                yield _decoded(batch, path, bad)
    except (pa.ArrowInvalid, EOFError, OSError) as error:
        raise UserError(f"data.path: {path} cannot be read as CSV: {error}") from error


def _header(path: str, options: CsvOptions) -> list[str]:
    try:
        head = csv_head(path, options, _HEADER_BYTES)
        names = next(csv.reader(io.StringIO(head, newline=""), delimiter=options.separator), [])
    except (csv.Error, EOFError, OSError) as error:
        raise UserError(f"data.path: {path} cannot be read as CSV: {error}") from error
    seems = next((s for s in ";\t|," if len(names) == 1 and s in names[0]), None)
    if seems:
        raise UserError(
            f"data.path: {path} has one column, {names[0][:60]!r}, when it is read with the separator {options.separator!r}. "
            f"Set data.csv.separator: {seems!r}."
        )
    if not names:
        raise UserError(f"data.path: {path} is empty; a CSV starts with a line of column names.")
    # The first may be an index that pandas or R wrote: whoever reads on decides.
    unnamed = [str(i + 1) for i, n in enumerate(names) if not n.strip() and (i or n)]
    if unnamed:
        raise UserError(f"data.path: {path}: column {', '.join(unnamed)} has no name. Name it in the first line.")
    _check_names(path, names)
    doubled = sorted(n for n, count in Counter(names).items() if count > 1)
    if doubled:
        raise UserError(f"data.path: {path}: duplicate column name {', '.join(map(repr, doubled))}. Rename one.")
    return names


def _check_names(path: str, names: Sequence[str]) -> None:
    """Raises UserError for a name that the formats and libraries behind cannot carry; any other one is a name like the rest."""
    for place, name in enumerate(names, start=1):
        if "\0" in name or "\ufffd" in name:
            what = "holds a NUL character" if "\0" in name else "is not UTF-8"
            raise UserError(f"data.path: {path}: the name of column {place}, {name[:50]!r}, {what}. Rename it.")


def _decoded(batch: pa.RecordBatch, path: str, bad: BadRows) -> pa.RecordBatch:
    try:
        return pa.RecordBatch.from_arrays([c.cast(pa.string()) for c in batch.columns], names=batch.schema.names)
    except pa.ArrowInvalid:
        pass
    keep, where = [], ""
    for i in range(batch.num_rows):
        row = [c[i].as_py() or b"" for c in batch.columns]
        good = all(_is_utf8(value) for value in row)
        keep.append(good)
        if not good:
            where = where or undecodable(path, DEFAULTS)
            bad.add(path, f"not UTF-8 text ({where})", b",".join(row).decode("utf-8", errors="backslashreplace"))
    kept = batch.filter(pa.array(keep))
    return pa.RecordBatch.from_arrays([c.cast(pa.string()) for c in kept.columns], names=kept.schema.names)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def read_parquet(path: str, bad: BadRows, missing_values: Sequence[str] | None) -> Batches:
    """Yields batches with the file's own types."""
    with open_file(path) as raw:
        try:
            source = pa.PythonFile(raw, mode="r")
            file = pa.parquet.ParquetFile(source)
            names = file.schema_arrow.names
            if len(set(names)) != len(names):
                raise UserError(f"data.path: {path}: duplicate column names. Rename one.")
            _check_names(path, names)
            yield from bounded_batches(file, source)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"data.path: {path} cannot be read as Parquet: {error}") from error


def read_jsonl(path: str, bad: BadRows, missing_values: Sequence[str] | None) -> Batches:
    """Yields batches of the lines' objects; a line that is not a JSON object goes to `bad`."""
    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    before = size = 0
    with open_file(path) as raw:
        for line in _lines(path, raw):
            row = _object(path, line, bad)
            if row is None:
                continue
            # Every row has a place in every column: objects that share no names would take the square of their size.
            if rows and (len(rows) >= rows_of(len(names) + len(row.keys() - names.keys())) or size + len(line) > BYTES):
                yield _batch_of(path, rows, list(names), before, missing_values or ())
                before += len(rows)
                rows, names, size = [], {}, 0
            rows.append(row)
            names |= dict.fromkeys(row)
            size += len(line)
    if rows:
        yield _batch_of(path, rows, list(names), before, missing_values or ())


def _lines(path: str, raw: BinaryIO) -> Generator[bytes, None, None]:
    number = 0
    while line := raw.readline(_LINE_BYTES + 1):
        number += 1
        if len(line) > _LINE_BYTES:
            raise UserError(
                f"data.path: {path}: line {number} has more than {_LINE_BYTES >> 20} MiB, the limit of a row. JSON Lines have "
                "one object a line; write the values that are so large to files of their own, or another format."
            )
        if line.strip():
            yield line


def _object(path: str, line: bytes, bad: BadRows) -> dict[str, Any] | None:
    """Returns a line's object; None: it is none, and is noted."""
    try:
        row = json.loads(line, object_pairs_hook=_unique)
        if not isinstance(row, dict):
            raise ValueError("not an object")
        if b"\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        bad.add(path, f"not a JSON object ({reason})", line.decode("utf-8", errors="backslashreplace").strip())
        return None
    return row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("duplicate keys")
    return row


def _batch_of(path: str, rows: list[dict[str, Any]], names: Sequence[str], before: int, missing: Sequence[str]) -> pa.RecordBatch:
    _check_names(path, names)
    columns, fields = [], []
    for name in names:
        try:
            column, field = json_column(name, [row.get(name) for row in rows], missing)
        except MixedColumnError as error:
            raise UserError(
                f"data: {path}, row {before + error.row}: column {name!r} {error}. Write it in one way, or leave it out "
                f"with data.exclude: [{name}]."
            ) from None
        columns.append(column)
        fields.append(field)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def read_tfrecord(path: str, bad: BadRows, missing_values: Sequence[str] | None) -> Batches:
    """Yields batches of `tf.Example` records; a record that is none goes to `bad`."""
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    decoder = ExamplesToRecordBatchDecoder()
    compression = "GZIP" if path.endswith(".gz") else ""
    if is_local(path) and not compression:
        _check_lengths(path)
    read = tf.data.TFRecordDataset(path, compression_type=compression).batch(_RECORDS_AT_ONCE)
    examples: list[bytes] = []
    names: set[str] = set()
    size = 0
    try:
        for record in (r for records in read.as_numpy_iterator() for r in records):
            here = _names_of(path, record, bad)
            if here is None:
                continue
            # As in JSON Lines: every record has a place in every column.
            if examples and (len(examples) >= rows_of(len(names) + len(here - names)) or size + len(record) > BYTES):
                yield decoder.DecodeBatch(examples)
                examples, names, size = [], set(), 0
            # The decoder cuts a name at NUL.
            _check_names(path, sorted(here - names))
            examples.append(record)
            names |= here
            size += len(record)
    except tf.errors.OpError as error:
        raise UserError(f"data.path: {path} cannot be read as TFRecord: {error.message}") from error
    if examples:
        yield decoder.DecodeBatch(examples)


def _check_lengths(path: str) -> None:
    """Raises UserError for a record that says it is longer than its file: TensorFlow makes room for it first, and dies."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = 0
            while at + _LENGTH.size <= size:
                length = _LENGTH.unpack_from(content, at)[0]
                if length > size - at - _FRAME:
                    raise UserError(
                        f"data.path: {path} cannot be read as TFRecord: the record at byte {at:,} is to have {length:,} bytes, "
                        f"and the file ends after {max(0, size - at - _FRAME):,}. It is truncated, or no TFRecord."
                    )
                at += _FRAME + length


def _names_of(path: str, record: bytes, bad: BadRows) -> set[str] | None:
    """Returns the columns of a record; None: it is no example, and is noted."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        return set(tf.train.Example.FromString(record).features.feature)
    except DecodeError:
        bad.add(path, "not a tf.Example", repr(record[:50]))
        return None


READERS: dict[str, Reader] = {"csv": read_csv, "parquet": read_parquet, "jsonl": read_jsonl, "tfrecord": read_tfrecord}
