"""Batches of raw examples through the bundles: labels, predictions, the columns to slice by. The same for every framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.utils import shared

from components.evaluation.batched_metrics import Batch
from components.evaluation.metric_names import ROW_ACCURACY, ROW_LOSS
from components.evaluation.metrics import row_feature
from components.evaluation.slices import SliceColumn, slice_column
from components.example_frames import column_values, encode_labels
from components.model_bundle import BundleModel, load_bundle, reordered

_EPSILON = 1e-7
ROWS = "rows"


class Predict(beam.DoFn):
    """Record batches of examples to `Batch`es: labels, predictions by model, the columns to slice by.

    `bundles` are folder and digest by model; one whose files are not as the digest says is refused.
    The output `ROWS` has the same as Arrow tables, see `rows_schema`.
    """

    def __init__(self, bundles: Mapping[str, tuple[str, str | None]], slice_features: Sequence[str]) -> None:
        self._places = dict(bundles)
        self._slice_features = list(slice_features)
        self._shared = shared.Shared()

    def setup(self) -> None:
        """Loads the bundles once a process."""
        self._bundles: dict[str, BundleModel] = self._shared.acquire(lambda: Loaded(self._places))

    def process(self, batch: pa.RecordBatch) -> Iterator[Any]:
        """Yields one batch, and one table."""
        info = next(iter(self._bundles.values())).info
        labels = encode_labels(column_values(batch, info.label, wide=False), info.classes)
        slices = {name: slice_column(batch, name) for name in self._slice_features}
        features: dict[str, np.ndarray] = {}
        scores = {}
        for name, bundle in self._bundles.items():
            # The candidates come first: their order of the classes holds for the champion too.
            found = reordered(bundle.scores_of_batch(batch), bundle.info, info.classes)
            if info.classes:
                # As Keras does: float32 rounds a sure prediction to exactly 0 or 1, whose logarithm is infinite.
                found = found.clip(_EPSILON, 1 - _EPSILON)
            scores[name] = found
            if info.task == "multiclass":
                index = labels.astype(int)
                features[row_feature(ROW_ACCURACY, name)] = (found.argmax(axis=1) == index).astype(float)
                features[row_feature(ROW_LOSS, name)] = -np.log(found[np.arange(len(index)), index]).astype(float)
        yield beam.pvalue.TaggedOutput(ROWS, _table(labels, scores, slices))
        yield Batch(labels, scores, features, slices)


class Loaded(dict[str, BundleModel]):
    """The bundles by name; a class of its own because a plain dict cannot be shared weakly."""

    def __init__(self, places: Mapping[str, tuple[str, str | None]]) -> None:
        super().__init__({name: load_bundle(folder, digest) for name, (folder, digest) in places.items()})


def rows_schema(models: Sequence[str], slice_features: Sequence[str]) -> pa.Schema:
    """Returns the columns of the table of predictions: `label`, a list of scores per model, `slice:<feature>` as text."""
    fields = [pa.field("label", pa.float64()), *(pa.field(m, pa.list_(pa.float32())) for m in models)]
    return pa.schema([*fields, *(pa.field(f"slice:{f}", pa.string()) for f in slice_features)])


def _table(labels: np.ndarray, scores: Mapping[str, np.ndarray], slices: Mapping[str, SliceColumn]) -> pa.Table:
    columns: dict[str, Any] = {"label": pa.array(labels, pa.float64())}
    for name, values in scores.items():
        offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel(), pa.float32()))
    columns |= {f"slice:{name}": column.text() for name, column in slices.items()}
    return pa.table(columns, schema=rows_schema(list(scores), list(slices)))
