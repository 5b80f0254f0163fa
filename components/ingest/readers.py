"""One reader per format: a file in, Arrow record batches out, in bounded memory. Values are not converted yet."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
import zlib
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from components.compat.arrow_invalid_rows import watched
from components.errors import UserError, first_line
from components.ingest.bad_rows import BadRows
from components.ingest.csv_options import DEFAULTS, CsvOptions, csv_head, csv_stream, marked, undecodable
from components.ingest.json_columns import UNTYPED, MixedColumnError, json_column
from components.ingest.sources import check_compression, open_file

_CSV_BLOCK = 8 << 20
_HEADER_BYTES = 1 << 20
_ROWS = 32_768
_LONGEST_NAME = 2_000

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
                raise UserError(
                    f"data.path: {path} cannot be read as {name}: {first_line(error)}. Look whether it is whole, of this format "
                    "(data.format) and compressed as its name says (.gz, .bz2)."
                ) from error

        return refusing

    return decorated


def is_untyped(field: pa.Field) -> bool:
    """Whether a field's texts are numbers and words that mean missing: their type is to be found as a CSV's is."""
    return bool(field.metadata) and UNTYPED in field.metadata


def reader(kind: str, options: CsvOptions) -> Reader:
    """Returns the reader of a format; the options are for CSVs."""
    return partial(read_csv, options=options) if kind == "csv" else READERS[kind]


@_refusing("CSV")
def read_csv(path: str, bad: BadRows, missing_values: Sequence[str] | None, options: CsvOptions = DEFAULTS) -> Batches:
    """Yields batches of string columns; rows with the wrong number of fields or not UTF-8 go to `bad`. An empty cell is null."""
    names = _header(path, options)

    def ragged(row: Any) -> str:
        place = f"record {row.number - 1:,}: " if row.number else ""
        bad.add(path, f"{place}{row.actual_columns} fields where the header has {row.expected_columns}", str(row.text))
        return "skip"

    with watched(ragged) as not_text, csv_stream(path, options) as raw:
        try:
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
        except pa.ArrowInvalid:
            if not_text:
                raise UserError(f"data.path: {undecodable(path, options)}") from None
            raise


def _header(path: str, options: CsvOptions) -> list[str]:
    head = csv_head(path, options, _HEADER_BYTES)
    try:
        names = next(csv.reader(io.StringIO(head, newline=""), delimiter=options.separator), [])
    except csv.Error as error:
        raise UserError(f"data.path: {path} cannot be read as CSV: {error}. Mend its first line.") from error
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
    doubled = sorted({n for n in names if names.count(n) > 1})
    if doubled:
        raise UserError(f"data.path: {path}: duplicate column name {', '.join(map(repr, doubled))}. Rename one.")
    return names


def _check_names(path: str, names: Sequence[str]) -> None:
    """Raises UserError for a name that the formats and libraries behind cannot carry; any other one is a name like the rest."""
    for place, name in enumerate(names, start=1):
        if "\0" in name or "\ufffd" in name:
            what = "holds a NUL character" if "\0" in name else "is not UTF-8"
            raise UserError(f"data.path: {path}: the name of column {place}, {name[:50]!r}, {what}. Rename it.")
        if len(name) > _LONGEST_NAME:
            raise UserError(
                f"data.path: {path}: the name of column {place}, {name[:50]!r}…, has {len(name):,} characters, at most "
                f"{_LONGEST_NAME:,} are taken: perhaps a quote is not closed. Rename it."
            )


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
        file = pa.parquet.ParquetFile(pa.PythonFile(raw, mode="r"))
        try:
            names = file.schema_arrow.names
        except UnicodeDecodeError as error:
            raise UserError(f"data.path: {path}: the name of a column, {error.object!r:.60}, is not UTF-8. Rename it.") from None
        if doubled := sorted({n for n in names if names.count(n) > 1}):
            raise UserError(f"data.path: {path}: duplicate column name {', '.join(map(repr, doubled))}. Rename one.")
        _check_names(path, names)
        before = 0
        for batch in file.iter_batches(batch_size=_ROWS):
            _check_texts(batch, path, before)
            yield batch
            before += batch.num_rows


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
    before = 0
    with open_file(path) as raw:
        for number, line in enumerate(raw):
            if not number:
                check_compression(path, line)
                if (mark := marked(line)) and mark != "utf-8":
                    raise UserError(f"data.path: {path} is {mark.upper()}; JSON Lines are UTF-8. Write the file as UTF-8.")
            if not line.strip():
                continue
            try:
                row = _object_of(line)
            except (ValueError, RecursionError) as error:
                text = line.decode("utf-8", errors="backslashreplace").strip()
                bad.add(path, f"line {number + 1:,}: not a JSON object ({_why_not_json(error)})", text)
                continue
            rows.append(row)
            if len(rows) == _ROWS:
                yield _batch_of(path, rows, before, missing_values or ())
                before += len(rows)
                rows = []
    if rows:
        yield _batch_of(path, rows, before, missing_values or ())


def _object_of(line: bytes) -> dict[str, Any]:
    """Returns a line's object.

    Raises:
        ValueError: it is none, or holds what is no text.
        RecursionError: it is nested too deep.
    """
    row = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_unique)
    if not isinstance(row, dict):
        raise ValueError("not an object")
    if b"\\u" in line:
        json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    return row


def _why_not_json(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, character {error.colno}"
    return f"byte {error.object[error.start]:#04x} is no UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


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
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    decoder = ExamplesToRecordBatchDecoder()
    compression = "GZIP" if path.endswith(".gz") else ""
    records = tf.data.TFRecordDataset(path, compression_type=compression).batch(_ROWS)
    before = 0
    try:
        for batch in records.as_numpy_iterator():
            examples = list(batch)
            try:
                decoded = decoder.DecodeBatch(examples)
            except RuntimeError:
                examples = [e for e in examples if _is_example(e, path, bad)]
                if not examples:
                    continue
                decoded = _decoded_apart(examples, path, before, missing_values or ())
            # The decoder cuts a name at NUL: looked at in the first record, whose columns the others share.
            _check_names(path, sorted(_names_of(examples[0])))
            _check_names(path, decoded.schema.names)
            yield decoded
            before += len(examples)
    except tf.errors.OpError as error:
        reason = _TENSORFLOWS_OWN.sub("", error.message)
        raise UserError(
            f"data.path: {path} cannot be read as TFRecord: {reason}. Look whether it is whole, of this format (data.format) and "
            "compressed as its name says (.gz)."
        ) from error


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
