"""TFMA's metrics of batches of rows: its computations, formulas and results; the sums over rows by NumPy.

TFMA's evaluator calls each metric's combiner once for each row and slice, in Python, also where it is given batches.
Here a whole batch becomes the accumulator that the combiner would have reached row by row; merging accumulators, the
values and everything that is derived from them stay TFMA's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.contrib.aggregates import binary_confusion_matrices as matrices
from tensorflow_model_analysis.metrics import (
    binary_confusion_matrices,
    calibration,
    calibration_histogram,
    cross_entropy_metrics,
    example_count,
    mean_regression_error,
    metric_specs,
    metric_types,
    multi_class_confusion_matrix_metrics,
    stats,
)
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation.slices import SliceColumn, SliceKey, slices_of

Computed = tuple[SliceKey, dict[Any, Any]]


@dataclass(frozen=True)
class Batch:
    """Rows with what was predicted for them.

    Attributes:
        labels: class index, or value; float64 (B,).
        predictions: model -> probabilities or values, float32 (B, outputs).
        features: other values of the rows, by name, (B,).
        slices: the columns to slice by.
    """

    labels: np.ndarray
    predictions: Mapping[str, np.ndarray]
    features: Mapping[str, np.ndarray]
    slices: Mapping[str, SliceColumn]

    def take(self, indices: np.ndarray) -> Batch:
        """Returns some of the rows, which are not sliced again."""
        predictions = {m: p[indices] for m, p in self.predictions.items()}
        return Batch(self.labels[indices], predictions, {n: v[indices] for n, v in self.features.items()}, {})

    def predicted(self, model: str) -> np.ndarray:
        """Returns a model's predictions; TFMA has no name for a model that is alone."""
        return self.predictions[model] if model else next(iter(self.predictions.values()))


class MeasureBatches(beam.PTransform):
    """`Batch`es to what `tfma.WriteResults` takes: metrics and plots of each slice, PCollections by name."""

    def __init__(self, config: config_pb2.EvalConfig) -> None:
        super().__init__()
        self._config = config

    def expand(self, batches: Any) -> dict[str, Any]:
        """See the base class."""
        computations = metric_specs.to_computations(list(self._config.metrics_specs), eval_config=self._config)
        # A derived computation brings those that it needs: the same one comes several times.
        base = list(dict.fromkeys(c for c in computations if isinstance(c, metric_types.MetricComputation)))
        derived = list(dict.fromkeys(c for c in computations if isinstance(c, metric_types.DerivedMetricComputation)))
        specs = list(self._config.slicing_specs)
        computed = (
            batches
            | "Slice" >> beam.FlatMap(_sliced, specs)
            | "Sum" >> beam.CombinePerKey(SumBatches([c.combiner for c in base]))
            | "Derive" >> beam.Map(_derive, derived)
        )
        return {
            tfma.METRICS_KEY: computed | "Metrics" >> beam.Map(_only, plots=False),
            tfma.PLOTS_KEY: computed | "Plots" >> beam.Map(_only, plots=True),
        }


def _sliced(batch: Batch, specs: Sequence[config_pb2.SlicingSpec]) -> Iterator[tuple[SliceKey, Batch]]:
    for key, indices in slices_of(batch.slices, specs, len(batch.labels)):
        yield key, batch.take(indices)


def _derive(computed: Computed, derived: Sequence[metric_types.DerivedMetricComputation]) -> Computed:
    key, found = computed
    found = dict(found)
    for computation in derived:
        found.update(computation.result(found))
    return key, {k: v for k, v in found.items() if not k.name.startswith("_") or k.name.startswith("__")}


def _only(computed: Computed, *, plots: bool) -> Computed:
    key, found = computed
    return key, {k: v for k, v in found.items() if isinstance(k, metric_types.PlotKey) == plots}


class SumBatches(beam.CombineFn):
    """TFMA's combiners side by side, which take a `Batch` at a time.

    Raises:
        TypeError: a combiner is of a metric whose batches nobody has said how to sum.
    """

    def __init__(self, combiners: Sequence[Any]) -> None:
        self._combiners = list(combiners)
        for combiner in self._combiners:
            _summary(combiner)

    def create_accumulator(self) -> tuple[Any, ...]:
        """See the base class."""
        return tuple(c.create_accumulator() for c in self._combiners)

    def add_input(self, accumulator: tuple[Any, ...], batch: Batch) -> tuple[Any, ...]:
        """See the base class."""
        return self.merge_accumulators([accumulator, tuple(_summary(c)(c, batch) for c in self._combiners)])

    def merge_accumulators(self, accumulators: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
        """See the base class."""
        # An iterator and no list: of a list TFMA's means of errors count the first one twice.
        columns = zip(*accumulators, strict=True)
        return tuple(c.merge_accumulators(iter(a)) for c, a in zip(self._combiners, columns, strict=True))

    def extract_output(self, accumulator: tuple[Any, ...]) -> dict[Any, Any]:
        """See the base class."""
        found: dict[Any, Any] = {}
        for combiner, summed in zip(self._combiners, accumulator, strict=True):
            found |= combiner.extract_output(summed)
        return found


def _count(combiner: Any, batch: Batch) -> float:
    return float(len(batch.labels))


def _cross_entropy(combiner: Any, batch: Batch) -> Any:
    summed = combiner.create_accumulator()
    predictions = batch.predicted(combiner._metric_key.model_name)
    summed.total_example_weights = float(len(batch.labels))
    # TFMA's formula, which is the mean over what it is given.
    summed.total_cross_entropy = len(batch.labels) * combiner._cross_entropy(batch.labels[:, None], predictions)
    return summed


def _regression_error(error: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any, Batch], Any]:
    def summary(combiner: Any, batch: Batch) -> Any:
        summed = combiner.create_accumulator()
        errors = error(batch.labels - batch.predicted(combiner._metric_key.model_name)[:, 0])
        there = ~np.isnan(errors)
        summed.total_regression_error = float(errors[there].sum())
        summed.total_example_weights = float(there.sum())
        return summed

    return summary


def _totals(combiner: Any, batch: Batch) -> Any:
    summed = combiner.create_accumulator()
    summed.total_weighted_examples = float(len(batch.labels))
    summed.total_weighted_labels = float(batch.labels.sum())
    summed.total_weighted_predictions = float(batch.predicted(combiner._key.model_name).sum(dtype=np.float64))
    return summed


def _mean(combiner: Any, batch: Batch) -> Any:
    summed = combiner.create_accumulator()
    values = batch.features[combiner._feature_key_path[-1]]
    summed.count, summed.total = float(len(values)), float(values.sum())
    return summed


def _histogram(combiner: Any, batch: Batch) -> Any:
    predictions = batch.predicted(combiner._key.model_name)[:, 0].astype(np.float64)
    position = (predictions - combiner._left) / combiner._range * combiner._num_buckets + 1
    buckets, index = np.unique(np.clip(position, 0, combiner._num_buckets + 1).astype(np.int64), return_inverse=True)
    sums = [np.bincount(index, weights).tolist() for weights in (batch.labels, predictions, np.ones(len(index)))]
    return {b: calibration_histogram.Bucket(b, *row) for b, *row in zip(buckets.tolist(), *sums, strict=True)}


def _confusion(combiner: Any, batch: Batch) -> Any:
    predictions, positive = batch.predicted(combiner._key.model_name)[:, 0], batch.labels == 1
    found = {}
    for threshold in combiner._binary_confusion_matrices._thresholds:
        said = predictions > threshold
        counts = (positive & said, ~positive & ~said, ~positive & said, positive & ~said)
        matrix = matrices.Matrix(**{n: float(c.sum()) for n, c in zip(("tp", "tn", "fp", "fn"), counts, strict=True)})
        found[threshold] = matrices._ThresholdEntry(matrix, [], [], [], [])
    return found


def _classes(combiner: Any, batch: Batch) -> Any:
    summed, kind = combiner.create_accumulator(), multi_class_confusion_matrix_metrics
    scores = batch.predicted(combiner._key.model_name)
    for threshold in combiner._thresholds:
        predicted = np.where(scores.max(axis=1) <= threshold, kind.NO_PREDICTED_CLASS_ID, scores.argmax(axis=1))
        pairs, counts = np.unique(np.stack([batch.labels.astype(np.int64), predicted]), axis=1, return_counts=True)
        entries = zip(*pairs.tolist(), counts.tolist(), strict=True)
        summed[threshold] = {kind.MatrixEntryKey(actual, said): float(n) for actual, said, n in entries}
    return summed


_SUMMARIES: dict[type, Callable[[Any, Batch], Any]] = {
    example_count._ExampleCountCombiner: _count,
    cross_entropy_metrics._BinaryCrossEntropyCombiner: _cross_entropy,
    binary_confusion_matrices._BinaryConfusionMatrixCombiner: _confusion,
    calibration_histogram._CalibrationHistogramCombiner: _histogram,
    calibration._WeightedLabelsPredictionsExamplesCombiner: _totals,
    multi_class_confusion_matrix_metrics._MultiClassConfusionMatrixCombiner: _classes,
    stats._MeanCombiner: _mean,
    mean_regression_error._MeanSquaredErrorCombiner: _regression_error(np.square),
    mean_regression_error._MeanAbsoluteErrorCombiner: _regression_error(np.abs),
}


def _summary(combiner: Any) -> Callable[[Any, Batch], Any]:
    try:
        return _SUMMARIES[type(combiner)]
    except KeyError:
        raise TypeError(f"no sum over batches for TFMA's {type(combiner).__name__}: add it to {__name__}") from None
