"""Reads `tf.Example` TFRecords in Beam batch by batch with TensorFlow's C++ reader instead of per record in Python.

With Beam's own TFRecord source, a stage that reads 500,000 rows spends half its time in Beam's per-record code
(docs/performance.md).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from switchyard.components.errors import damaged_artifact
from switchyard.components.text.escaping import pattern_of

# Batch size of TFX's own sources.
BATCH_ROWS = 1000
BATCH_BYTES = 32 << 20
_AHEAD = 2
# Column of the number of a row among those of all files; numbers of one file follow those of the files before it.
NUMBER = "row:number"
_MOST_ROWS = 1 << 40


def _fitting(file: str, compression: str) -> int:
    """Returns the number of rows per batch, fewer for large records: several batches are in memory at a time."""
    # A small buffer avoids reading the whole file for its first record.
    first = next(tf.data.TFRecordDataset(file, compression, buffer_size=1 << 16).take(1).as_numpy_iterator(), b"")
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, len(first))))


@beam.typehints.with_output_types(pa.RecordBatch)
class ReadExamples(beam.PTransform):
    """Transform that reads the record batches of TFRecord files in order; a worker reads a file from start to end.

    Args:
        patterns: files or globs; `.gz` files are decompressed.
        schema: schema of the columns to decode; None decodes all columns of a batch.
        rows: rows per batch; None for `BATCH_ROWS`, or fewer when records are large.
        numbered: whether batches have the column `NUMBER`, as workers return the rows in no order.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        schema: schema_pb2.Schema | None = None,
        rows: int | None = None,
        *,
        numbered: bool = False,
    ) -> None:
        super().__init__()
        self._numbered = numbered
        self._patterns = list(patterns)
        self._schema = schema.SerializeToString() if schema is not None else None
        self._rows = rows

    def expand(self, root: Any) -> Any:
        """See the base class."""
        gfile = tf.io.gfile
        # An existing file's name is taken literally; folder names in a pattern may contain glob characters.
        files = sorted(file for p in self._patterns for file in ([p] if gfile.exists(p) else gfile.glob(pattern_of(p))))
        if not files:
            raise FileNotFoundError(f"no files match {', '.join(self._patterns)}")
        if self._numbered:
            return root | "Files" >> beam.Create(list(enumerate(files))) | "Read" >> beam.FlatMap(_numbered, self._rows)
        return root | "Files" >> beam.Create(files) | "Read" >> beam.FlatMap(read_batches, self._schema, self._rows)


def _numbered(place: tuple[int, str], rows: int | None) -> Iterator[pa.RecordBatch]:
    number, file = place
    yield from with_numbers(read_batches(file, None, rows), number)


def with_numbers(batches: Iterator[pa.RecordBatch], file: int) -> Iterator[pa.RecordBatch]:
    """Yields the batches of a file, by its place among the files, with the column `NUMBER`."""
    first = file * _MOST_ROWS
    for batch in batches:
        numbers = pa.array(np.arange(first, first + batch.num_rows, dtype=np.int64))
        yield pa.RecordBatch.from_arrays([*batch.columns, numbers], names=[*batch.schema.names, NUMBER])
        first += batch.num_rows


def read_batches(file: str, schema: bytes | None = None, rows: int | None = None) -> Iterator[pa.RecordBatch]:
    """Yields the record batches of one TFRecord file; `schema` is serialized, see `ReadExamples` for the arguments."""
    decoder = ExamplesToRecordBatchDecoder(schema)
    compression = "GZIP" if file.endswith(".gz") else ""
    records = tf.data.TFRecordDataset(file, compression, buffer_size=8 << 20)
    # Decoding releases the GIL: the next batches are decoded on another core while the stage processes this one.
    with ThreadPoolExecutor(1) as pool:
        ahead: deque[Future[pa.RecordBatch]] = deque()
        try:
            for batch in records.batch(rows or _fitting(file, compression)).prefetch(_AHEAD).as_numpy_iterator():
                ahead.append(pool.submit(decoder.DecodeBatch, batch))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft().result()
        except tf.errors.DataLossError as error:  # its text names no file
            reason = error.message.partition(" [")[0].rpartition("}} ")[2]
            raise damaged_artifact(file, os.path.dirname(os.path.dirname(file)), reason) from error
        while ahead:
            yield ahead.popleft().result()
