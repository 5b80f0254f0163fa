"""One reader per format: a file in, Arrow record batches out, in bounded memory. Values are not converted yet."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import json
import mmap
import os
import re
import struct
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from components.compat.arrow_invalid_rows import watched
from components.errors import UserError, first_line
from components.ingest.bad_rows import BadRows
from components.ingest.csv_options import DEFAULTS, CsvOptions, csv_head, csv_stream, marked, undecodable
from components.ingest.json_columns import UNTYPED, MixedColumnError, json_column
from components.ingest.parquet_batches import BYTES, bounded_batches, rows_of
from components.ingest.sources import check_compression, is_local, open_file

_CSV_BLOCK = 8 << 20
# Of the first line; the second, where it is longer than the first.
_HEADER_BYTES = (1 << 20, 8 << 20)
_FIRST_ROWS = 10
# Columns of the widest sheet that is exported with all of its separators.
_MOST_UNNAMED = 1 << 14
_SHOWN = 20
# Of a line of JSON. What a compressed file unpacks to has no end of its own.
_LINE_BYTES = 64 << 20
_RECORDS_AT_ONCE = 1024
# A TFRecord's record: its length, the length's checksum, its bytes, their checksum.
_LENGTH, _FRAME = struct.Struct("<Q"), 8 + 4 + 4

Batches = Generator[pa.RecordBatch, None, None]
Reader = Callable[[str, BadRows, Sequence[str] | None], Batches]


# What TensorFlow's messages say of its own graph.
_TENSORFLOWS_OWN = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:.*", re.DOTALL)
# Of Arrow, of a file and what decompresses it.
_BROKEN = (pa.ArrowException, EOFError, OSError, zlib.error)


def _refusing(name: str) -> Callable[[Callable[..., Batches]], Callable[..., Batches]]:
    """Makes a file that is not of a reader's format, cut off or wrongly compressed the user's error."""

    def decorated(read: Callable[..., Batches]) -> Callable[..., Batches]:
        @functools.wraps(read)
        def refusing(path: str, *arguments: Any, **options: Any) -> Batches:
            try:
                yield from read(path, *arguments, **options)
            except _BROKEN as error:
                raise _unreadable(path, name, first_line(error), ".gz, .bz2") from error

        return refusing

    return decorated


def _unreadable(path: str, name: str, reason: str, endings: str) -> UserError:
    return UserError(
        f"data.path: {path} cannot be read as {name}: {reason}. Look whether it is whole, of this format (data.format) and "
        f"compressed as its name says ({endings})."
    )


def is_untyped(field: pa.Field) -> bool:
    """Whether a field's texts are numbers and words that mean missing: their type is to be found as a CSV's is."""
    return bool(field.metadata) and UNTYPED in field.metadata


def reader(kind: str, options: CsvOptions) -> Reader:
    """Returns the reader of a format; the options are for CSVs."""
    return partial(read_csv, options=options) if kind == "csv" else READERS[kind]


@_refusing("CSV")
def read_csv(path: str, bad: BadRows, missing_values: Sequence[str] | None, options: CsvOptions = DEFAULTS) -> Batches:
    """Yields batches of string columns; rows with the wrong number of fields or not UTF-8 go to `bad`. An empty cell is null."""
    head = _header(path, options)
    names = head.names

    def ragged(row: Any) -> str:
        place = f"record {row.number - head.lines:,}: " if row.number else ""
        bad.add(path, f"{place}{row.actual_columns} fields where the header has {row.expected_columns}", str(row.text))
        return "skip"

    with watched(ragged) as not_text, csv_stream(path, options) as raw:
        if head.is_all:
            return
        try:
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
        except pa.ArrowInvalid:
            if not_text:
                raise UserError(f"data.path: {undecodable(path, options)}") from None
            raise


@dataclass(frozen=True)
class _Header:
    """A CSV's first line, which may be written in several.

    Attributes:
        names: of the columns that rows have.
        lines: that it takes up.
        is_all: nothing follows it.
        unnamed: names, as pandas gives them, of columns without any at the end, where lines end with a separator.
    """

    names: list[str]
    lines: int
    is_all: bool
    unnamed: list[str]


def _header(path: str, options: CsvOptions) -> _Header:
    names, lines, is_all, first = _first_lines(path, options)
    seems = next((s for s in ";\t|," if len(names) == 1 and s in names[0]), None)
    if seems:
        raise UserError(
            f"data.path: {path} has one column, {names[0][:60]!r}, when it is read with the separator {options.separator!r}. "
            f"Set data.csv.separator: {seems!r}."
        )
    if not names:
        raise UserError(f"data.path: {path} is empty; a CSV starts with a line of column names.")
    named = next((i for i in range(len(names), 1, -1) if names[i - 1].strip()), 1)
    if len(names) - named > _MOST_UNNAMED:
        raise _unnamed(path, range(named, len(names)))
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
    _check_doubled(path, names)
    return _Header(names, lines, is_all, unnamed)


def _first_lines(path: str, options: CsvOptions) -> tuple[list[str], int, bool, list[list[str]]]:
    """Returns the names in a CSV's first line, the number of lines that it is written in, whether that is all, and a few rows."""
    for size in _HEADER_BYTES:
        head, is_cut = csv_head(path, options, size)
        text = io.StringIO(head, newline="")
        rows = csv.reader(text, delimiter=options.separator)
        try:
            names = next(rows, [])
        except csv.Error as error:
            raise UserError(f"data.path: {path} cannot be read as CSV: {error}. Mend its first line.") from error
        lines = rows.line_num
        is_all = text.tell() == len(head)
        if is_cut and is_all:
            continue
        first: list[list[str]] = []
        with suppress(csv.Error):  # of a field that Arrow may well read
            first.extend(itertools.islice(rows, _FIRST_ROWS))
        whole = first[:-1] if is_cut and text.tell() == len(head) else first
        return names, lines, is_all, [row for row in whole if row]
    raise UserError(
        f"data.path: {path}: the first line has more than {size >> 20} MiB; a CSV starts with a line of column names."
    )


def _unnamed(path: str, places: Sequence[int]) -> UserError:
    more = f" and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else ""
    shown = ", ".join(str(i + 1) for i in places[:_SHOWN])
    return UserError(f"data.path: {path}: column {shown}{more} has no name. Name it in the first line.")


def _check_doubled(path: str, names: Sequence[str]) -> None:
    if doubled := sorted(n for n, count in Counter(names).items() if count > 1):
        raise UserError(f"data.path: {path}: duplicate column name {', '.join(map(repr, doubled))}. Rename one.")


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


@_refusing("Parquet")
def read_parquet(path: str, bad: BadRows, missing_values: Sequence[str] | None) -> Batches:
    """Yields batches with the file's own types."""
    with open_file(path) as raw:
        source = pa.PythonFile(raw, mode="r")
        try:
            file = pa.parquet.ParquetFile(source)
            names = file.schema_arrow.names
        except UnicodeDecodeError as error:
            raise UserError(f"data.path: {path}: the name of a column, {error.object!r:.60}, is not UTF-8. Rename it.") from None
        _check_names(path, names)
        _check_doubled(path, names)
        before = 0
        for batch in bounded_batches(file, source):
            _check_texts(batch, path, before)
            yield _without_extensions(batch)
            before += batch.num_rows


def _without_extensions(batch: pa.RecordBatch) -> pa.RecordBatch:
    if not any(isinstance(t, pa.BaseExtensionType) for t in batch.schema.types):
        return batch
    return pa.RecordBatch.from_arrays([_stored(c) for c in batch.columns], names=batch.schema.names)


def _stored(column: pa.Array) -> pa.Array:
    """Returns a column of an extension type of Arrow as the type below; UUIDs as the texts that other formats have."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    if column.type.extension_name == "arrow.uuid":
        return pa.array([None if v is None else str(uuid.UUID(bytes=v)) for v in column.storage.to_pylist()], pa.string())
    return pc.not_equal(column.storage, 0) if column.type.extension_name == "arrow.bool8" else column.storage


def _check_texts(batch: pa.RecordBatch, path: str, before: int) -> None:
    """Raises UserError for texts that are none: Parquet only promises that they are UTF-8."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            row = next((i for i in range(len(column)) if not _is_valid(column.slice(i, 1))), 0)
            raise UserError(
                f"data: {path}, row {before + row}: column {name!r} holds values that are not of its type, {column.type}: "
                f"{first_line(error)}. Write bytes as binary, or leave it out with data.exclude: [{name}]."
            ) from None


def _is_valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


@_refusing("JSON Lines")
def read_jsonl(path: str, bad: BadRows, missing_values: Sequence[str] | None) -> Batches:
    """Yields batches of the lines' objects; a line that is not a JSON object goes to `bad`."""
    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    before = size = 0
    with open_file(path) as raw:
        for number, line in _lines(path, raw):
            row = _object(path, line, number, bad)
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


def _lines(path: str, raw: BinaryIO) -> Generator[tuple[int, bytes], None, None]:
    """Yields the lines that are not blank, with their numbers from 1."""
    number = 0
    while line := raw.readline(_LINE_BYTES + 1):
        number += 1
        if number == 1:
            check_compression(path, line)
            if (mark := marked(line)) and mark != "utf-8":
                raise UserError(f"data.path: {path} is {mark.upper()}; JSON Lines are UTF-8. Write the file as UTF-8.")
        if len(line) > _LINE_BYTES:
            raise UserError(
                f"data.path: {path}: line {number:,} has more than {_LINE_BYTES >> 20} MiB, the limit of a row. JSON Lines have "
                "one object a line; write the values that are so large to files of their own, or another format."
            )
        if line.strip():
            yield number, line


def _object(path: str, line: bytes, number: int, bad: BadRows) -> dict[str, Any] | None:
    """Returns a line's object; None: it is none, and is noted."""
    try:
        return _object_of(line)
    except (ValueError, RecursionError) as error:
        text = line.decode("utf-8", errors="backslashreplace").strip()
        bad.add(path, f"line {number:,}: not a JSON object ({_why_not_json(error)})", text)
        return None


def _object_of(line: bytes) -> dict[str, Any]:
    """Returns a line's object.

    Raises:
        ValueError: it is none, or holds what is no text.
        RecursionError: it is nested too deeply.
    """
    row = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_unique)
    if not isinstance(row, dict):
        raise ValueError("not an object")
    if b"\\u" in line:
        json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    return row


def _why_not_json(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, character {error.colno}"
    return f"byte {error.object[error.start]:#04x} is no UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("duplicate keys")
    return row


def _batch_of(path: str, rows: list[dict[str, Any]], names: Sequence[str], before: int, missing: Sequence[str]) -> pa.RecordBatch:
    _check_names(path, names)
    columns, fields = [], []
    for name in names:
        column, field = _json_column(path, name, [row.get(name) for row in rows], before, missing)
        columns.append(column)
        fields.append(field)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _json_column(path: str, name: str, values: list[Any], before: int, missing: Sequence[str]) -> tuple[pa.Array, pa.Field]:
    try:
        return json_column(name, values, missing)
    except MixedColumnError as error:
        raise UserError(
            f"data: {path}, row {before + error.row}: column {name!r} {error}. Write it in one way, or leave it out "
            f"with data.exclude: [{name}]."
        ) from None


def read_tfrecord(path: str, bad: BadRows, missing_values: Sequence[str] | None) -> Batches:
    """Yields batches of `tf.Example` records; a record that is none goes to `bad`."""
    import tensorflow as tf

    compression = "GZIP" if path.lower().endswith(".gz") else ""
    if is_local(path) and not compression:
        _check_lengths(path)
    read = tf.data.TFRecordDataset(path, compression_type=compression).batch(_RECORDS_AT_ONCE)
    examples: list[bytes] = []
    names: set[str] = set()
    before = size = 0
    try:
        for record in (r for records in read.as_numpy_iterator() for r in records):
            here = _names_of(path, record, bad)
            if here is None:
                continue
            # As in JSON Lines: every record has a place in every column.
            if examples and (len(examples) >= rows_of(len(names) + len(here - names)) or size + len(record) > BYTES):
                yield _examples_batch(examples, path, before, missing_values or ())
                before += len(examples)
                examples, names, size = [], set(), 0
            if here - names:  # looked at before they are decoded: the decoder cuts a name at NUL
                _check_names(path, sorted(here))
            examples.append(record)
            names |= here
            size += len(record)
    except tf.errors.OpError as error:
        raise _unreadable(path, "TFRecord", _TENSORFLOWS_OWN.sub("", error.message), ".gz") from error
    if examples:
        yield _examples_batch(examples, path, before, missing_values or ())


def _examples_batch(records: Sequence[bytes], path: str, before: int, missing: Sequence[str]) -> pa.RecordBatch:
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    try:
        return ExamplesToRecordBatchDecoder().DecodeBatch(records)
    except RuntimeError:
        return _decoded_apart(records, path, before, missing)


def _decoded_apart(records: Sequence[bytes], path: str, before: int, missing: Sequence[str]) -> pa.RecordBatch:
    """Decodes records some of whose features have another kind from record to record: these are read as JSON's columns are.

    Raises:
        UserError: no column can hold such a feature's values together.
    """
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    examples = [tf.train.Example.FromString(r) for r in records]
    kinds: dict[str, set[str]] = {}
    for example in examples:
        for name, feature in example.features.feature.items():
            if kind := feature.WhichOneof("kind"):
                kinds.setdefault(name, set()).add(kind)
    apart = [n for n, seen in sorted(kinds.items()) if len(seen) > 1]
    values = {n: [_values_of(e, n, path, before + i) for i, e in enumerate(examples)] for n in apart}
    for example in examples:
        for name in apart:
            example.features.feature.pop(name, None)
    decoded = ExamplesToRecordBatchDecoder().DecodeBatch([e.SerializeToString() for e in examples])
    for name in apart:
        column, field = _json_column(path, name, values[name], before, missing)
        decoded = decoded.append_column(field, column)
    return decoded


def _values_of(example: Any, name: str, path: str, row: int) -> Any:
    """Returns a feature's values as JSON has them: one, a list, or None."""
    if name not in example.features.feature or not (kind := example.features.feature[name].WhichOneof("kind")):
        return None
    try:
        found = [v.decode() if isinstance(v, bytes) else v for v in getattr(example.features.feature[name], kind).value]
    except UnicodeDecodeError:
        raise UserError(
            f"data: {path}, row {row}: column {name!r} holds bytes that are no UTF-8 text, and in other records numbers. "
            f"Write it in one way, or leave it out with data.exclude: [{name}]."
        ) from None
    return found if len(found) > 1 else found[0] if found else None


def _check_lengths(path: str) -> None:
    """Raises UserError for a record that says it is longer than its file: TensorFlow makes room for it first, and dies."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = 0
            while at + _LENGTH.size <= size:
                length = _LENGTH.unpack_from(content, at)[0]
                if length > size - at - _FRAME:
                    left = max(0, size - at - _FRAME)
                    reason = f"the record at byte {at:,} is to have {length:,} bytes, and the file ends after {left:,}"
                    raise _unreadable(path, "TFRecord", reason, ".gz")
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
