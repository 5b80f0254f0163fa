"""One reader per format: a file in, Arrow record batches out, in bounded memory. Values are not converted yet."""

from __future__ import annotations

import csv
import io
import itertools
import json
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from components.errors import UserError
from components.ingest.bad_rows import BadRows
from components.ingest.csv_options import DEFAULTS, CsvOptions, csv_head, csv_stream, undecodable
from components.ingest.json_columns import UNTYPED, MixedColumnError, json_column
from components.ingest.sources import open_file

_CSV_BLOCK = 8 << 20
_HEADER_BYTES = 8 << 20
_FIRST_ROWS = 10
_ROWS = 32_768

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
    head = _header(path, options)
    names = head.names

    def ragged(row: Any) -> str:
        bad.add(path, f"{row.actual_columns} fields where the header has {row.expected_columns}", str(row.text))
        return "skip"

    try:
        with csv_stream(path, options) as raw:
            rows = pa.csv.open_csv(
                raw,
                # One thread: with several, the row handler is called from threads that wait on one another.
                read_options=pa.csv.ReadOptions(
                    block_size=_CSV_BLOCK, use_threads=False, column_names=names, skip_rows=head.lines
                ),
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
                decoded = _decoded(batch, path, bad)
                if held := [n for n in head.unnamed if decoded.column(n).null_count < decoded.num_rows]:
                    raise _unnamed(path, [names.index(n) for n in held])
                yield decoded
    except (pa.ArrowInvalid, EOFError, OSError) as error:
        raise UserError(f"data.path: {path} cannot be read as CSV: {error}") from error


@dataclass(frozen=True)
class _Header:
    """A CSV's first line, which may be written in several.

    Attributes:
        names: of the columns that rows have.
        lines: that it takes up.
        unnamed: names, as pandas gives them, of columns without any at the end, where lines end with a separator.
    """

    names: list[str]
    lines: int
    unnamed: list[str]


def _header(path: str, options: CsvOptions) -> _Header:
    try:
        head = csv_head(path, options, _HEADER_BYTES)
        rows = csv.reader(io.StringIO(head, newline=""), delimiter=options.separator)
        names = next(rows, [])
        lines = rows.line_num
        first = [row for row in itertools.islice(rows, _FIRST_ROWS) if row]
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
    named = next((i for i in range(len(names), 1, -1) if names[i - 1].strip()), 1)
    unnamed = [f"Unnamed: {i}" for i in range(named, len(names))]
    # The first may be an index that pandas or R wrote: whoever reads on decides.
    if nameless := [i for i, n in enumerate(names[:named]) if not n.strip() and (i or n)]:
        raise _unnamed(path, nameless)
    fields = {len(row) for row in first}
    if fields == {named}:  # only the first line ends with a separator: there is no such column
        names, unnamed = names[:named], []
    elif fields == {len(names) + 1} and all(row[-1] for row in first):  # R writes the names of rows without one for their column
        names, unnamed = ["", *names], []
    else:
        names = [*names[:named], *unnamed]
    _check_names(path, names)
    doubled = sorted(n for n, times in Counter(names).items() if times > 1)
    if doubled:
        raise UserError(f"data.path: {path}: duplicate column name {', '.join(map(repr, doubled))}. Rename one.")
    return _Header(names, lines, unnamed)


def _unnamed(path: str, places: Sequence[int]) -> UserError:
    return UserError(f"data.path: {path}: column {', '.join(str(i + 1) for i in places)} has no name. Name it in the first line.")


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
            file = pa.parquet.ParquetFile(pa.PythonFile(raw, mode="r"))
            names = file.schema_arrow.names
            if len(set(names)) != len(names):
                raise UserError(f"data.path: {path}: duplicate column names. Rename one.")
            _check_names(path, names)
            for batch in file.iter_batches(batch_size=_ROWS):
                yield pa.RecordBatch.from_arrays([_stored(c) for c in batch.columns], names=names)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"data.path: {path} cannot be read as Parquet: {error}") from error


def _stored(column: pa.Array) -> pa.Array:
    """Returns a column of an extension type of Arrow as the type below; UUIDs as the texts that other formats have."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    if column.type.extension_name == "arrow.uuid":
        return pa.array([None if v is None else str(uuid.UUID(bytes=v)) for v in column.storage.to_pylist()], pa.string())
    return pc.not_equal(column.storage, 0) if column.type.extension_name == "arrow.bool8" else column.storage


def read_jsonl(path: str, bad: BadRows, missing_values: Sequence[str] | None) -> Batches:
    """Yields batches of the lines' objects; a line that is not a JSON object goes to `bad`."""
    rows: list[dict[str, Any]] = []
    before = 0
    with open_file(path) as raw:
        for line in raw:
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=_unique)
                if not isinstance(row, dict):
                    raise ValueError("not an object")
                if b"\\u" in line:
                    json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
            except ValueError as error:
                bad.add(path, f"not a JSON object ({error})", line.decode("utf-8", errors="backslashreplace").strip())
                continue
            rows.append(row)
            if len(rows) == _ROWS:
                yield _batch_of(path, rows, before, missing_values or ())
                before += len(rows)
                rows = []
    if rows:
        yield _batch_of(path, rows, before, missing_values or ())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("duplicate keys")
    return row


def _batch_of(path: str, rows: list[dict[str, Any]], before: int, missing: Sequence[str]) -> pa.RecordBatch:
    names = list(dict.fromkeys(name for row in rows for name in row))
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
    records = tf.data.TFRecordDataset(path, compression_type=compression).batch(_ROWS)
    try:
        for batch in records.as_numpy_iterator():
            examples = list(batch)
            try:
                decoded = decoder.DecodeBatch(examples)
            except RuntimeError:
                good = [e for e in examples if _is_example(e, path, bad)]
                if not good:
                    continue
                decoded = decoder.DecodeBatch(good)
            # The decoder cuts a name at NUL: looked at in the first record, whose columns the others share.
            _check_names(path, sorted(_names_of(examples[0])))
            _check_names(path, decoded.schema.names)
            yield decoded
    except tf.errors.OpError as error:
        raise UserError(f"data.path: {path} cannot be read as TFRecord: {error.message}") from error


def _names_of(record: bytes) -> list[str]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        return list(tf.train.Example.FromString(record).features.feature)
    except DecodeError:
        return []


def _is_example(record: bytes, path: str, bad: BadRows) -> bool:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        tf.train.Example.FromString(record)
    except DecodeError:
        bad.add(path, "not a tf.Example", repr(record[:50]))
        return False
    return True


READERS: dict[str, Reader] = {"csv": read_csv, "parquet": read_parquet, "jsonl": read_jsonl, "tfrecord": read_tfrecord}
