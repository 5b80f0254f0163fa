"""The columns of text that a tokenizer reads, and their first rows, before a run."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing

import numpy as np
import pyarrow as pa

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError, did_you_mean
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import EMPTY, STRING
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.ingest.scan import Scan, read_batches, scan
from switchyard.components.ingest.typed import TypedColumns
from switchyard.components.text.visible import in_a_line

_ROWS = 64
_NO_LIMIT = 2**62


def text_columns(spec: InputSpec, found: Scan, wanted: Collection[str]) -> list[str]:
    """Returns the columns that the default preprocessing passes to a tokenizer: `wanted`, or all columns of text.

    Args:
        spec: the input.
        found: result of a scan, possibly of the first rows.
        wanted: `tokenizer.columns`.

    Raises:
        UserError: a wanted column does not exist or is no text, or no column is text.
    """
    others = {*spec.labels, spec.group, spec.sample_weight, *spec.images}
    columns = {n: t for n, t in found.types.items() if n not in others}
    texts = [n for n, t in columns.items() if t.kind == STRING and not t.is_list]
    # In the first rows only, a column may be empty.
    possible = {*texts, *(n for n, t in columns.items() if t.kind == EMPTY and found.is_partial)}
    for name in wanted:
        if name not in possible:
            raise UserError(
                f"tokenizer.columns: {name!r} is no usable column of text.{did_you_mean(name, texts)} "
                f"Columns of text: {in_a_line(texts) or 'none'}."
            )
    if not possible:
        raise UserError(
            f"tokenizer: no column is text: {in_a_line(f'{n} ({t.kind})' for n, t in columns.items())}. Remove tokenizer, or "
            "declare a column as text: data.columns"
        )
    return list(wanted or texts)


def first_texts(spec: InputSpec, wanted: Collection[str]) -> list[tuple[FeatureSpec, np.ndarray]]:
    """Returns the columns that a tokenizer reads, each with its first values: an object array of bytes (B, 1), B at most 64.

    Raises:
        UserError: see `text_columns`.
    """
    spec = spec.with_folders()
    found = scan(spec, BadRows(_NO_LIMIT), peek=True)
    typed = TypedColumns(found.types, spec.missing_values or (), (*spec.labels, *spec.images))
    rows = typed.convert(first_rows(spec, _ROWS))
    texts = []
    for name in text_columns(spec, found, wanted):
        values = rows.column(name).to_pylist() if name in rows.schema.names else [None] * rows.num_rows
        array = np.array([value[0] if value else b"" for value in values], dtype=object)[:, np.newaxis]
        texts.append((FeatureSpec(name, "bytes" if name in typed.bytes_columns else "string", (1,)), array))
    return texts


def first_rows(spec: InputSpec, rows: int) -> pa.RecordBatch:
    """Returns up to so many of the first rows that have a label, as in their file."""
    for file in (f for group in spec.files().values() for f in group):
        with closing(read_batches(spec, file, BadRows(_NO_LIMIT), decode=False)) as batches:
            for batch in batches:
                return batch.slice(0, rows)
    raise UserError("data: it has no rows; it changed during the check. Run again.")
