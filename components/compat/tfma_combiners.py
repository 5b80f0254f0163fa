"""What TFMA's combiners reach row by row, in Python, of a whole batch at once, by NumPy.

TFMA offers no metric that takes batches of rows. An accumulator's form is private to its combiner; merging accumulators, the
values and everything that is derived from them stay TFMA's own (`components.evaluation.batched_metrics`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tensorflow_model_analysis.contrib.aggregates import binary_confusion_matrices as matrices
from tensorflow_model_analysis.metrics import (
    binary_confusion_matrices,
    calibration,
    calibration_histogram,
    cross_entropy_metrics,
    example_count,
    mean_regression_error,
    multi_class_confusion_matrix_metrics,
    stats,
)

from switchyard.components.compat.patch import Private

_IN = "tensorflow_model_analysis.metrics."
PRIVATE = Private(
    "tensorflow-model-analysis",
    ("0.48", "0.52"),
    (
        "tensorflow_model_analysis.contrib.aggregates.binary_confusion_matrices:_ThresholdEntry",
        _IN + "example_count:_ExampleCountCombiner",
        _IN + "cross_entropy_metrics:_BinaryCrossEntropyCombiner",
        _IN + "binary_confusion_matrices:_BinaryConfusionMatrixCombiner",
        _IN + "calibration_histogram:_CalibrationHistogramCombiner",
        _IN + "calibration:_WeightedLabelsPredictionsExamplesCombiner",
        _IN + "multi_class_confusion_matrix_metrics:_MultiClassConfusionMatrixCombiner",
        _IN + "stats:_MeanCombiner",
        _IN + "mean_regression_error:_MeanSquaredErrorCombiner",
        _IN + "mean_regression_error:_MeanAbsoluteErrorCombiner",
    ),
    "https://github.com/tensorflow/model-analysis/tree/v0.52.0/tensorflow_model_analysis/metrics",
)


def _count(combiner: Any, batch: Any) -> float:
    return float(len(batch.labels))


def _cross_entropy(combiner: Any, batch: Any) -> Any:
    summed = combiner.create_accumulator()
    labels, predictions = batch.of(combiner._metric_key.model_name)
    summed.total_example_weights = float(len(labels))
    # TFMA's formula, which is the mean over what it is given.
    if len(labels):
        summed.total_cross_entropy = len(labels) * combiner._cross_entropy(labels[:, None], predictions)
    return summed


def _regression_error(error: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any, Any], Any]:
    def sums(combiner: Any, batch: Any) -> Any:
        summed = combiner.create_accumulator()
        labels, predictions = batch.of(combiner._metric_key.model_name)
        errors = error(labels - predictions[:, 0])
        there = ~np.isnan(errors)
        summed.total_regression_error = float(errors[there].sum())
        summed.total_example_weights = float(there.sum())
        return summed

    return sums


def _totals(combiner: Any, batch: Any) -> Any:
    summed = combiner.create_accumulator()
    labels, predictions = batch.of(combiner._key.model_name)
    summed.total_weighted_examples = float(len(labels))
    summed.total_weighted_labels = float(labels.sum())
    summed.total_weighted_predictions = float(predictions.sum(dtype=np.float64))
    return summed


def _mean(combiner: Any, batch: Any) -> Any:
    summed = combiner.create_accumulator()
    values = batch.feature(combiner._feature_key_path[-1])
    summed.count, summed.total = float(len(values)), float(values.sum())
    return summed


def _histogram(combiner: Any, batch: Any) -> Any:
    labels, scores = batch.of(combiner._key.model_name)
    predictions = scores[:, 0].astype(np.float64)
    position = (predictions - combiner._left) / combiner._range * combiner._num_buckets + 1
    buckets, index = np.unique(np.clip(position, 0, combiner._num_buckets + 1).astype(np.int64), return_inverse=True)
    sums = [np.bincount(index, weights).tolist() for weights in (labels, predictions, np.ones(len(index)))]
    return {b: calibration_histogram.Bucket(b, *row) for b, *row in zip(buckets.tolist(), *sums, strict=True)}


def _confusion(combiner: Any, batch: Any) -> Any:
    labels, scores = batch.of(combiner._key.model_name)
    predictions, positive = scores[:, 0], labels == 1
    found = {}
    for threshold in combiner._binary_confusion_matrices._thresholds:
        said = predictions > threshold
        counts = (positive & said, ~positive & ~said, ~positive & said, positive & ~said)
        matrix = matrices.Matrix(**{n: float(c.sum()) for n, c in zip(("tp", "tn", "fp", "fn"), counts, strict=True)})
        found[threshold] = matrices._ThresholdEntry(matrix, [], [], [], [])
    return found


def _classes(combiner: Any, batch: Any) -> Any:
    summed, kind = combiner.create_accumulator(), multi_class_confusion_matrix_metrics
    labels, scores = batch.of(combiner._key.model_name)
    for threshold in combiner._thresholds:
        predicted = np.where(scores.max(axis=1) <= threshold, kind.NO_PREDICTED_CLASS_ID, scores.argmax(axis=1))
        pairs, counts = np.unique(np.stack([labels.astype(np.int64), predicted]), axis=1, return_counts=True)
        entries = zip(*pairs.tolist(), counts.tolist(), strict=True)
        summed[threshold] = {kind.MatrixEntryKey(actual, said): float(n) for actual, said, n in entries}
    return summed


_SUMMARIES: dict[type, Callable[[Any, Any], Any]] = {
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


def summary(combiner: Any) -> Callable[[Any, Any], Any]:
    """Returns a function of a combiner and a `Batch` to the accumulator that the combiner would reach row by row.

    Raises:
        TypeError: the combiner is of a metric without a rule to sum its batches.
    """
    try:
        return _SUMMARIES[type(combiner)]
    except KeyError:
        raise TypeError(f"no sum over batches for TFMA's {type(combiner).__name__}: add it to {__name__}") from None
