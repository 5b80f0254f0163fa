"""One reader per format: yields Arrow record batches of a file in bounded memory, without converting values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pyarrow as pa

from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.csv_reader import read_csv
from switchyard.components.ingest.json_columns import UNTYPED
from switchyard.components.ingest.jsonl_reader import read_jsonl
from switchyard.components.ingest.parquet_reader import read_parquet
from switchyard.components.ingest.reading import Batches, every_column
from switchyard.components.ingest.tfrecord_reader import read_tfrecord

Reader = Callable[[str, BadRows, Sequence[str] | None], Batches]
READERS: dict[str, Reader] = {"csv": read_csv, "parquet": read_parquet, "jsonl": read_jsonl, "tfrecord": read_tfrecord}


def is_untyped(field: pa.Field) -> bool:
    """Returns whether a field's texts are numbers and missing words only, so that its type is inferred as for a CSV."""
    return bool(field.metadata) and UNTYPED in field.metadata


def reader(kind: str, options: CsvOptions, reads: Callable[[str], bool] = every_column, *, keep: bool = False) -> Reader:
    """Returns the reader of a format; `options` apply to CSVs only.

    Args:
        kind: the format.
        options: see above.
        reads: whether the values of a column are read. Those of others need not fit into one column, nor be valid; where formats
            allow values that do not or are not, they are missing.
        keep: keep such values instead of leaving them out: those that fit into no column as JSON texts, texts that are no
            UTF-8 as bytes.
    """
    if kind == "csv":
        return partial(read_csv, options=options)
    of_any_values: dict[str, Callable[..., Batches]] = {"jsonl": read_jsonl, "parquet": read_parquet, "tfrecord": read_tfrecord}
    return partial(of_any_values[kind], reads=reads, keep=keep)
