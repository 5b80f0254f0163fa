"""Converts batches of examples to a bundle's input: DataFrames, columns and labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from switchyard.components.bundle.model import RawFeature


def to_frame(records: Sequence[bytes], features: Iterable[RawFeature]) -> pd.DataFrame:
    """Returns serialized `tf.Example`s as a bundle's input: scalars, arrays for wide features, None for missing values."""
    return frame_of(ExamplesToRecordBatchDecoder().DecodeBatch(list(records)), features)


def frame_of(batch: pa.RecordBatch, features: Iterable[RawFeature]) -> pd.DataFrame:
    """Returns a batch of list columns as a bundle's input."""
    return pd.DataFrame({f.name: _feature_values(batch, f) for f in features})


def _feature_values(batch: pa.RecordBatch, feature: RawFeature) -> Any:
    wide = (feature.width or 1) > 1 or feature.is_list
    found = column_values(batch, feature.name, wide=wide)
    if feature.dtype == "int64" and isinstance(found, np.ndarray) and found.dtype.kind == "f":
        # Some values are missing. float64 has NaN for them but cannot represent all integers, so use objects.
        return pd.Series([v[0] if v else None for v in batch.column(feature.name).to_pylist()], dtype=object)
    return found


def column_values(batch: pa.RecordBatch, name: str, *, wide: bool) -> Any:
    """Returns one column: an array of scalars (NaN or None where missing), or a list of arrays."""
    if name not in batch.schema.names or pa.types.is_null(batch.column(name).type):
        return [None] * batch.num_rows
    column = batch.column(name)
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    if wide:
        return [None if v is None or not len(v) else np.asarray(v) for v in column.to_pylist()]
    if pc.min(lengths).as_py() == 1:
        return column.flatten().to_numpy(zero_copy_only=False)
    first = pc.list_element(pc.if_else(pc.greater(lengths, 0), column, pa.scalar([None], column.type)), 0)
    if pa.types.is_binary(first.type) or pa.types.is_large_binary(first.type):
        return first.to_pylist()
    return first.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def encode_labels(values: Any, classes: Sequence[Any]) -> np.ndarray:
    """Returns class indices, or a regression's values, float64 (B,); NaN for an unknown class."""
    if not classes:
        return np.asarray(values, dtype=np.float64)
    index = {c.encode() if isinstance(c, str) else c: float(i) for i, c in enumerate(classes)}
    return np.asarray([index.get(v if isinstance(v, bytes) else int(v), np.nan) for v in values])
