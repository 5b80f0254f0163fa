"""Reads TFRecords of `tf.Example`."""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.batch_size import BYTES, rows_of
from switchyard.components.ingest.reading import Batches, check_names, every_column, read_column, unreadable
from switchyard.components.ingest.sources import is_local, open_file
from switchyard.components.values.base64_values import as_json

_RECORDS_AT_ONCE = 1024
# Frame of a record: 8 bytes of length, 4 of its checksum, the data, 4 of the data's checksum.
_LENGTH, _FRAME = struct.Struct("<Q"), 8 + 4 + 4
# Parts of TensorFlow's error messages about its internal graph.
_TENSORFLOWS_OWN = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:.*", re.DOTALL)


def read_tfrecord(
    path: str,
    bad: BadRows,
    missing_values: Sequence[str] | None,
    *,
    reads: Callable[[str], bool] = every_column,
    keep: bool = False,
) -> Batches:
    """Yields batches of `tf.Example` records; a record that does not parse goes to `bad`. See `readers.reader` for the rest."""
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
            # As in JSON Lines, a batch allocates a cell for each record and column.
            if examples and (len(examples) >= rows_of(len(names) + len(here - names)) or size + len(record) > BYTES):
                yield _examples_batch(examples, path, before, missing_values or (), reads, keep=keep)
                before += len(examples)
                examples, names, size = [], set(), 0
            if here - names:  # checked before decoding: the decoder truncates names at NUL
                check_names(path, sorted(here))
            examples.append(record)
            names |= here
            size += len(record)
    except tf.errors.OpError as error:
        raise unreadable(path, "TFRecord", _TENSORFLOWS_OWN.sub("", error.message), ".gz") from error
    if examples:
        yield _examples_batch(examples, path, before, missing_values or (), reads, keep=keep)


def _examples_batch(
    records: Sequence[bytes], path: str, before: int, missing: Sequence[str], reads: Callable[[str], bool], *, keep: bool
) -> pa.RecordBatch:
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    try:
        return ExamplesToRecordBatchDecoder().DecodeBatch(records)
    except RuntimeError:
        return _decoded_apart(records, path, before, missing, reads, keep=keep)


def _decoded_apart(
    records: Sequence[bytes], path: str, before: int, missing: Sequence[str], reads: Callable[[str], bool], *, keep: bool
) -> pa.RecordBatch:
    """Returns a batch of records with features whose kind differs between records; these are read like JSON columns.

    Raises:
        UserError: no column type can hold a feature's values together.
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
    used = {n: reads(n) for n in apart}
    values: dict[str, list[Any]] = {}
    for name in apart:
        each = (_values_of(e, name, path, before + i, any_bytes=not used[name]) for i, e in enumerate(examples))
        values[name] = list(each) if used[name] or keep else [None] * len(examples)
    for example in examples:
        for name in apart:
            example.features.feature.pop(name, None)
    decoded = ExamplesToRecordBatchDecoder().DecodeBatch([e.SerializeToString() for e in examples])
    for name in apart:
        column, field = read_column(path, name, values[name], before, missing, texts=not used[name])
        decoded = decoded.append_column(field, column)
    return decoded


def _values_of(example: Any, name: str, path: str, row: int, *, any_bytes: bool) -> Any:
    """Returns a feature's values in JSON form: a single value, a list, or None; with `any_bytes`, bytes need not be UTF-8."""
    if name not in example.features.feature or not (kind := example.features.feature[name].WhichOneof("kind")):
        return None
    try:
        found = [v.decode() if isinstance(v, bytes) else v for v in getattr(example.features.feature[name], kind).value]
    except UnicodeDecodeError:
        if any_bytes:
            return [as_json(v) if isinstance(v, bytes) else v for v in getattr(example.features.feature[name], kind).value]
        raise UserError(
            f"data: {path}, row {row}: column {name!r} holds bytes that are not UTF-8 text, and numbers in other records. "
            f"Write it in one way, or exclude it with data.exclude: [{name}]."
        ) from None
    return found if len(found) > 1 else found[0] if found else None


def _check_lengths(path: str) -> None:
    """Raises UserError for a record longer than its file: TensorFlow would allocate the stated length and crash."""
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
                    reason = f"the record at byte {at:,} has {length:,} bytes by its header, but the file ends after {left:,}"
                    raise unreadable(path, "TFRecord", reason, ".gz")
                at += _FRAME + length


def _names_of(path: str, record: bytes, bad: BadRows) -> set[str] | None:
    """Returns the columns of a record; None, with a bad row added, when it is no `tf.Example`."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        return set(tf.train.Example.FromString(record).features.feature)
    except DecodeError:
        bad.add(path, "not a tf.Example", repr(record[:50]))
        return None
