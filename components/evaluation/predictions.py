"""Raw serialized examples to a DataFrame, and from there through the bundle: batched, the same for every framework."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.utils import shared
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.evaluation.metric_names import ROW_ACCURACY, ROW_LOSS
from components.model_bundle import BundleModel, RawFeature, load_bundle


def to_frame(records: Sequence[bytes], features: Iterable[RawFeature]) -> pd.DataFrame:
    """Returns serialized `tf.Example`s as a bundle takes rows: scalars, arrays for wide features, None for missing."""
    batch = ExamplesToRecordBatchDecoder().DecodeBatch(list(records))
    return pd.DataFrame({f.name: column_values(batch, f.name, wide=(f.width or 1) > 1 or f.is_list) for f in features})


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


_EPSILON = 1e-7


class Predict(beam.DoFn):
    """Batches of serialized examples to TFMA extracts: labels (class index), predictions, slice features."""

    def __init__(self, bundle: str, slice_features: Sequence[str]) -> None:
        self._bundle_path = bundle
        self._slice_features = list(slice_features)
        self._shared = shared.Shared()

    def setup(self) -> None:
        """Loads the bundle once a process."""
        self._bundle: BundleModel = self._shared.acquire(lambda: load_bundle(self._bundle_path))

    def process(self, records: Sequence[bytes]) -> Iterator[dict[str, Any]]:
        """Yields one extract an example."""
        info = self._bundle.info
        batch = ExamplesToRecordBatchDecoder().DecodeBatch(list(records))
        frame = pd.DataFrame({f.name: column_values(batch, f.name, wide=(f.width or 1) > 1 or f.is_list) for f in info.features})
        scores = self._bundle.scores(frame)
        if info.classes:
            # As Keras does: float32 rounds a sure prediction to exactly 0 or 1, whose logarithm is infinite.
            scores = scores.clip(_EPSILON, 1 - _EPSILON)
        labels = encode_labels(column_values(batch, info.label, wide=False), info.classes)
        features = {name: [_slice_value(v) for v in column_values(batch, name, wide=False)] for name in self._slice_features}
        if info.task == "multiclass":
            index = labels.astype(int)
            features[ROW_ACCURACY] = list((scores.argmax(axis=1) == index).astype(float))
            features[ROW_LOSS] = list(-np.log(scores[np.arange(len(index)), index]).astype(float))
        for i in range(len(records)):
            yield {
                "labels": labels[i : i + 1],
                "predictions": scores[i],
                "example_weights": np.ones(1),
                "features": {name: np.asarray([values[i]]) for name, values in features.items()},
            }


def encode_labels(values: Any, classes: Sequence[Any]) -> np.ndarray:
    """Returns class indices, or the values of a regression, float64 (B,); NaN for what is no class."""
    if not classes:
        return np.asarray(values, dtype=np.float64)
    index = {c.encode() if isinstance(c, str) else c: float(i) for i, c in enumerate(classes)}
    return np.asarray([index.get(v if isinstance(v, bytes) else int(v), np.nan) for v in values])


def _slice_value(value: Any) -> Any:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "missing"
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    # Integers with missing values come as floats.
    return int(value) if float(value).is_integer() else float(value)
