"""Computes statistics of a sample of serving requests: raw rows without the label, in any format that ingest reads."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pandas as pd
import pyarrow as pa
import tensorflow_data_validation as tfdv

from switchyard.components.compat.tfdv_quantiles import stats_options
from switchyard.components.data.added_columns import may_be_added
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate.statistics import Statistics
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.declared import plain_numbers
from switchyard.components.ingest.images import in_parts, with_images
from switchyard.components.ingest.readers import reader
from switchyard.components.ingest.sources import find_files, format_of
from switchyard.components.values.conversion import fit, single
from switchyard.components.values.raw_features import raw_feature

_BATCHES = 10
# The same of rows with images, which are read in small parts.
_PARTS = 160


def sample_statistics(
    paths: Sequence[str], summary: DatasetSummary, missing_values: Sequence[str] | None, key: str = "validation.serving_sample"
) -> Statistics:
    """Returns the statistics of the first rows (some 300,000) of each file, with the examples' column types.

    `key` names the setting in error messages.

    Raises:
        UserError: the sample cannot be read, or has no rows.
    """
    listed = tuple(missing_values or ())
    options = CsvOptions.of(summary.csv)
    numbers = {n for n, kind in summary.columns.items() if kind != "string"}
    frames = []
    for file in find_files(paths, key):
        # Skips requests that cannot be read: the user cannot fix served data.
        kind = format_of(file, "auto")
        read_file = reader(kind, options, lambda name: name in summary.columns, keep=True)
        with closing(read_file(file, BadRows(limit=2**31), listed)) as batches:
            parts = (with_images(b, summary.images, file) for b in in_parts(batches, summary.images))
            read = itertools.islice(parts, _PARTS if summary.images else _BATCHES)
            plain = (plain_numbers(b, numbers, options) for b in read) if kind == "csv" else read
            frames += [_typed(b, summary, listed) for b in plain]
    if not frames or not sum(map(len, frames)):
        raise UserError(f"{key}: no rows in {', '.join(paths)}. Check the file.")
    sample = pd.concat(frames, ignore_index=True)
    for name in sample.columns:
        # Keeps text as text where training had numbers, so that the type difference is detected.
        if sample[name].map(lambda v: isinstance(v, str)).any():
            sample[name] = sample[name].map(lambda v: None if pd.isna(v) else str(v))
    return tfdv.generate_statistics_from_dataframe(sample, stats_options=stats_options())


def _short(image: bytes | None) -> bytes | None:
    """Returns bytes that statistics count like the image, as a value of its own that is no text, in less memory."""
    return image[:3] + hashlib.sha256(image).digest() if image else None


def _typed(batch: pa.RecordBatch, summary: DatasetSummary, missing: Sequence[str]) -> pd.DataFrame:
    """Returns rows as they would be served: values that do not fit become missing, unless most of a column does not fit."""
    typed: dict[str, Any] = {}
    for name in batch.schema.names:
        if name not in summary.columns and may_be_added(name):
            continue
        kind = summary.columns.get(name, "string")
        if kind.startswith("list"):
            continue
        feature = raw_feature(name, summary)
        column = batch.column(name)
        found = fit(column, replace(feature, missing=[*feature.missing, *missing]))
        present = len(column) - found.values.null_count
        if feature.image:
            typed[name] = [_short(v) for v in single(found.values).to_pylist()]
        elif len(found.misfits) > present or (kind == "string" and found.misfits):
            typed[name] = [None if v is None else str(v) for v in column.to_pylist()]
        elif feature.is_bytes:
            typed[name] = single(found.values).to_pylist()  # matches the statistics of the training data
        elif kind == "string":
            typed[name] = [v.decode("utf-8", "replace") if v is not None else None for v in single(found.values).to_pylist()]
        else:
            typed[name] = single(found.values).to_pandas().astype("float64")
    return pd.DataFrame(typed, index=range(batch.num_rows))
