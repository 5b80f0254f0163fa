"""Computes metrics and plots of every slice with NumPy in batches, by TFMA's formulas and in TFMA's output format.

TFMA's evaluator calls each metric's combiner in Python once per row and slice, even for batches, and returns 0 for undefined
metrics: the AUC of one class, the precision of a model without positive predictions. Here undefined metrics are NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics.binary_confusion_matrices import Matrices
from tensorflow_model_analysis.metrics.calibration_plot import CALIBRATION_PLOT_NAME
from tensorflow_model_analysis.metrics.confusion_matrix_plot import CONFUSION_MATRIX_PLOT_NAME
from tensorflow_model_analysis.metrics.metric_types import MetricKey, PlotKey
from tensorflow_model_analysis.metrics.multi_class_confusion_matrix_plot import MULTI_CLASS_CONFUSION_MATRIX_PLOT_NAME
from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2

from switchyard.components.evaluation.curves import (
    above,
    bins_of,
    bucket_of,
    curve_bins,
    defined_mean,
    precision_recall_area,
    roc_area,
    spread,
)
from switchyard.components.evaluation.ranking import query_values
from switchyard.components.evaluation.row_values import ROW_VALUES
from switchyard.components.evaluation.slices import SliceColumn, SliceKey, slices_of
from switchyard.components.evaluation.tfma_config import of_rows, row_feature
from switchyard.components.metrics import base
from switchyard.components.tasks import BINARY, MULTICLASS, MULTILABEL, RANKING, REGRESSION

# The thresholds of TFMA's plots.
_PLOTTED = np.concatenate([[-1e-6], np.arange(1001) / 1000])
_CALIBRATED = np.concatenate([[-np.inf], np.arange(1001) / 1000])
_ROWS = "rows"


@dataclass(frozen=True)
class Batch:
    """Labels and predictions of a batch of rows.

    Attributes:
        labels: see `bootstrap.Rows`; float64 (B,), or (B, columns).
        predictions: model -> probabilities, or values for a regression; float32 (B, outputs).
        slices: columns to slice by.
        judged: model -> rows that count for it, bool (B,); all rows count for models without an entry.
        weights: sample weights, float64 (B,); None weighs all rows the same.
    """

    labels: np.ndarray
    predictions: Mapping[str, np.ndarray]
    slices: Mapping[str, SliceColumn]
    judged: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: np.ndarray | None = None

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """Returns the rows of several batches, in order; all have the same models and slice columns."""
        first = batches[0]
        predictions, judged = (
            {m: np.concatenate([getattr(b, name)[m] for b in batches]) for m in getattr(first, name)}
            for name in ("predictions", "judged")
        )
        slices = {name: SliceColumn.joined([b.slices[name] for b in batches]) for name in first.slices}
        weights = None if first.weights is None else np.concatenate([b.weights for b in batches if b.weights is not None])
        return cls(np.concatenate([b.labels for b in batches]), predictions, slices, judged, weights)

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the selected rows without slice columns."""
        predictions = {m: p[indices] for m, p in self.predictions.items()}
        judged = {m: rows[indices] for m, rows in self.judged.items()}
        return Batch(self.labels[indices], predictions, {}, judged, None if self.weights is None else self.weights[indices])

    def of(self, model: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns labels, a model's predictions and weights of the rows that count for it."""
        weights = np.ones(len(self.labels)) if self.weights is None else self.weights
        rows = self.judged.get(model, slice(None))
        return self.labels[rows], self.predictions[model][rows], weights[rows]


@dataclass(frozen=True)
class Sums:
    """Sums of values by key.

    Attributes:
        keys: int64 (k,), sorted.
        values: float64 (k, values).
    """

    keys: np.ndarray
    values: np.ndarray

    @classmethod
    def by_key(cls, keys: np.ndarray, *columns: np.ndarray) -> Sums:
        """Returns the sums of columns (B,) over rows with the same key."""
        found, index = np.unique(keys, return_inverse=True)
        return cls(found, np.stack([np.bincount(index, c, len(found)) for c in columns], axis=1))

    @classmethod
    def of_all(cls, *totals: float) -> Sums:
        """Returns sums over all rows, under a single key."""
        return cls(np.zeros(1, np.int64), np.array([totals], np.float64))

    @classmethod
    def added(cls, several: Sequence[Sums]) -> Sums:
        """Returns the total of several sums."""
        return cls.by_key(np.concatenate([s.keys for s in several]), *np.concatenate([s.values for s in several]).T)

    @property
    def totals(self) -> list[float]:
        """The sums over all rows, see `of_all`."""
        return [float(v) for v in self.values[0]]


@dataclass(frozen=True)
class Kept:
    """Rows themselves, for metrics of queries, whose rows may come in several batches.

    Attributes:
        rows: labels, then scores, float64 (n, columns).
    """

    rows: np.ndarray

    @classmethod
    def added(cls, several: Sequence[Kept]) -> Kept:
        """Returns the rows of all."""
        return cls(np.concatenate([kept.rows for kept in several]))


# (model, kind of sums) -> sums; the number of rows is stored under the model "".
Summed = dict[tuple[str, str], Any]
Found = tuple[dict[str, float], dict[str, Any]]
# From labels, scores and weights.
_Sum = Callable[[np.ndarray, np.ndarray, np.ndarray], Mapping[str, Sums | Kept]]


class MeasureBatches(beam.PTransform):
    """A transform from `Batch`es to the input of `tfma.WriteResults`: metrics and plots per slice, PCollections by name.

    Args:
        task: name of a task.
        config: the models and the slices.
        targets: see `DatasetSummary.targets`.
    """

    def __init__(self, task: str, config: config_pb2.EvalConfig, targets: Sequence[str] = ()) -> None:
        super().__init__()
        self._targets = list(targets)
        self._task, self._models = task, [spec.name for spec in config.model_specs]
        self._slices, self._weighted = list(config.slicing_specs), _is_weighted(config)

    def expand(self, batches: Any) -> dict[str, Any]:
        """See the base class."""
        computed = (
            batches
            | "Slice" >> beam.FlatMap(_sliced, self._slices)
            | "Sum" >> beam.CombinePerKey(SumBatches(self._task, self._targets))
            | "Measure" >> beam.Map(_measured, self._task, self._models, self._weighted)
        )
        return {
            tfma.METRICS_KEY: computed | "Metrics" >> beam.Map(lambda found: (found[0], found[1])),
            tfma.PLOTS_KEY: computed | "Plots" >> beam.Map(lambda found: (found[0], found[2])),
        }


def measure(
    batch: Batch, task: str, config: config_pb2.EvalConfig, targets: Sequence[str] = ()
) -> Iterator[tuple[SliceKey, dict[Any, Any], dict[Any, Any]]]:
    """Yields TFMA's key, metrics and plots of each slice of all rows: what `MeasureBatches` computes of the rows' batches."""
    sums, models = SumBatches(task, targets), [spec.name for spec in config.model_specs]
    for key, rows in _sliced(batch, list(config.slicing_specs)):
        yield _measured((key, sums.add_input(sums.create_accumulator(), rows)), task, models, _is_weighted(config))


def _is_weighted(config: config_pb2.EvalConfig) -> bool:
    return any(spec.example_weight_key for spec in config.model_specs)


def _sliced(batch: Batch, specs: Sequence[config_pb2.SlicingSpec]) -> Iterator[tuple[SliceKey, Batch]]:
    for key, indices in slices_of(batch.slices, specs, len(batch.labels)):
        yield key, batch.take(indices)


class SumBatches(beam.CombineFn):
    """A combiner of the sums that a task's metrics are computed from."""

    def __init__(self, task: str, targets: Sequence[str] = ()) -> None:
        if task in ROW_VALUES:
            self._sums: _Sum = lambda labels, scores, weights: _sum_rows(task, labels, scores, targets, weights)
        else:
            self._sums = _TASKS[task][0]

    def create_accumulator(self) -> Summed:
        """See the base class."""
        return {}

    def add_input(self, accumulator: Summed, batch: Batch) -> Summed:
        """See the base class."""
        found: Summed = {("", _ROWS): Sums.of_all(len(batch.labels))}
        for model in batch.predictions:
            found |= {(model, kind): sums for kind, sums in self._sums(*batch.of(model)).items()}
        return self.merge_accumulators([accumulator, found])

    def merge_accumulators(self, accumulators: Iterable[Summed]) -> Summed:
        """See the base class."""
        several: dict[tuple[str, str], list[Any]] = {}
        for accumulator in accumulators:
            for key, sums in accumulator.items():
                several.setdefault(key, []).append(sums)
        return {key: sums[0] if len(sums) == 1 else type(sums[0]).added(sums) for key, sums in several.items()}

    def extract_output(self, accumulator: Summed) -> Summed:
        """See the base class."""
        return accumulator


def _measured(
    slice_: tuple[SliceKey, Summed], task: str, models: Sequence[str], weighted: bool
) -> tuple[SliceKey, dict[Any, Any], dict[Any, Any]]:
    key, summed = slice_
    [rows] = summed["", _ROWS].totals
    own = of_rows(task)
    metrics: dict[Any, Any] = {}
    plots: dict[Any, Any] = {}
    for model in models:
        # TFMA omits the name of a single model.
        name = model if len(models) > 1 else ""
        measured, plotted = _measure(task)({kind: sums for (of, kind), sums in summed.items() if of == model})
        metrics[MetricKey("example_count", model_name=name)] = rows
        for metric, value in measured.items():
            of_model = {"name": row_feature(metric, model)} if base(metric) in own else {"name": metric, "model_name": name}
            metrics[MetricKey(**of_model, example_weighted=weighted)] = value
        plots |= {PlotKey(kind, model_name=name, example_weighted=weighted): plot for kind, plot in plotted.items()}
    return key, metrics, plots


def _ratio(above_: float, below: float) -> float:
    return above_ / below if below else float("nan")


def _sum_binary(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, Sums]:
    p, positive = scores[:, 0], labels == 1
    predicted = p > 0.5
    loss = -labels * np.log(p) - (1 - labels) * np.log(1 - p)
    outcomes = (positive & predicted, ~positive & predicted, ~positive & ~predicted, positive & ~predicted)
    totals = (weights.sum(), weights @ labels, weights @ p.astype(np.float64), weights @ loss)
    return {
        "totals": Sums.of_all(*map(float, totals)),
        "matrix": Sums.of_all(*(float(weights[each].sum()) for each in outcomes)),
        "buckets": Sums.by_key(bucket_of(p), weights * labels, weights * p, weights),
    }


def _measure_binary(sums: Mapping[str, Sums]) -> Found:
    rows, positives, predicted, loss = sums["totals"].totals
    tp, fp, tn, fn = sums["matrix"].totals
    buckets, (labels, _, counts) = sums["buckets"].keys, sums["buckets"].values.T
    hits, misses = (spread(curve_bins(buckets), n) for n in (labels, (counts - labels).clip(0)))
    measured = {
        "loss": _ratio(loss, rows),
        "accuracy": _ratio(tp + tn, rows),
        "auc": float(roc_area(hits, misses)),
        "auc_precision_recall": precision_recall_area(hits, misses),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "calibration": _ratio(predicted, positives),
    }
    plots = {CONFUSION_MATRIX_PLOT_NAME: _confusion_plot, CALIBRATION_PLOT_NAME: _calibration_plot}
    return measured, {name: plot(sums["buckets"]) for name, plot in plots.items()}


def _confusion_plot(sums: Sums) -> Any:
    bins = bins_of(sums.keys, above(_PLOTTED))
    labels, _, counts = sums.values.T
    hits, misses = (np.bincount(bins, n, len(_PLOTTED)) for n in (labels, (counts - labels).clip(0)))
    tp, fp = (np.cumsum(n[::-1])[::-1] for n in (hits, misses))
    fn, tn = hits.sum() - tp, misses.sum() - fp
    return Matrices(*(n.tolist() for n in (_PLOTTED, tp, tn, fp, fn))).to_proto().confusion_matrix_at_thresholds


def _calibration_plot(sums: Sums) -> Any:
    bins, plot = bins_of(sums.keys, _CALIBRATED), metrics_for_slice_pb2.CalibrationHistogramBuckets()
    columns = [np.bincount(bins, n, len(_CALIBRATED)).tolist() for n in sums.values.T]
    for low, high, label, predicted, count in zip(_CALIBRATED, [*_CALIBRATED[1:], np.inf], *columns, strict=True):
        plot.buckets.add(
            lower_threshold_inclusive=low,
            upper_threshold_exclusive=high,
            total_weighted_label={"value": label},
            total_weighted_refined_prediction={"value": predicted},
            num_weighted_examples={"value": count},
        )
    return plot


def _sum_multiclass(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, Sums]:
    actual, predicted = labels.astype(np.int64), scores.argmax(axis=1)
    loss = -np.log(scores[np.arange(len(actual)), actual]).astype(np.float64)
    return {
        "totals": Sums.of_all(float(weights.sum()), float(weights[actual == predicted].sum()), weights @ loss),
        "matrix": Sums.by_key(actual << 32 | predicted, weights),
    }


def _measure_multiclass(sums: Mapping[str, Sums]) -> Found:
    rows, right, loss = sums["totals"].totals
    plot = metrics_for_slice_pb2.MultiClassConfusionMatrixAtThresholds()
    matrix = plot.matrices.add(threshold=0.0)
    for key, [count] in zip(sums["matrix"].keys.tolist(), sums["matrix"].values.tolist(), strict=True):
        matrix.entries.add(actual_class_id=key >> 32, predicted_class_id=key & 0xFFFFFFFF, num_weighted_examples=count)
    return {"loss": _ratio(loss, rows), "accuracy": _ratio(right, rows)}, {MULTI_CLASS_CONFUSION_MATRIX_PLOT_NAME: plot}


def _sum_regression(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, Sums]:
    predicted = scores[:, 0].astype(np.float64)
    there = ~np.isnan(labels - predicted)
    error, of_errors = (labels - predicted)[there], weights[there]
    errors = (of_errors.sum(), of_errors @ error**2, of_errors @ np.abs(error))
    totals = (*errors, weights.sum(), weights @ labels, weights @ predicted)
    return {"totals": Sums.of_all(*map(float, totals))}


def _measure_regression(sums: Mapping[str, Sums]) -> Found:
    errors, squared, absolute, rows, label, predicted = sums["totals"].totals
    means = {"mean_label": _ratio(label, rows), "mean_prediction": _ratio(predicted, rows)}
    return {"loss": _ratio(squared, errors), "mae": _ratio(absolute, errors), **means}, {}


def _sum_rows(task: str, labels: np.ndarray, scores: np.ndarray, targets: Sequence[str], weights: np.ndarray) -> dict[str, Sums]:
    total = float(weights.sum())
    found = {name: Sums.of_all(total, float(weights @ of)) for name, of in ROW_VALUES[task](labels, scores, targets).items()}
    if task == MULTILABEL:
        for i, target in enumerate(targets):
            found[f"auc/{target}"] = Sums.by_key(bucket_of(scores[:, i]), weights * labels[:, i], weights)
    return found


def _measure_rows(sums: Mapping[str, Sums]) -> Found:
    buckets = {name: of for name, of in sums.items() if name.startswith("auc/")}
    measured = {name: _ratio(*reversed(of.totals)) for name, of in sums.items() if name not in buckets}
    if buckets:
        each = {name: _area(of) for name, of in buckets.items()}
        measured |= {
            "auc": float(defined_mean(list(each.values()))),
            **each,
            "auc_micro": _area(Sums.added(list(buckets.values()))),
        }
    return measured, {}


def _area(sums: Sums) -> float:
    labels, counts = sums.values.T
    hits, misses = (spread(curve_bins(sums.keys), n) for n in (labels, (counts - labels).clip(0)))
    return float(roc_area(hits, misses))


def _measure(task: str) -> Callable[[Any], Found]:
    return _measure_rows if task in ROW_VALUES else _TASKS[task][1]


def _keep_ranking(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, Kept]:
    return {_ROWS: Kept(np.hstack([labels, scores.astype(np.float64)]))}


def _measure_ranking(kept: Mapping[str, Kept]) -> Found:
    rows = kept[_ROWS].rows
    return {n: _ratio(float(of.sum()), len(of)) for n, of in query_values(rows[:, :2], rows[:, 2:]).items()}, {}


_TASKS: dict[str, tuple[_Sum, Callable[[Any], Found]]] = {
    RANKING: (_keep_ranking, _measure_ranking),
    BINARY: (_sum_binary, _measure_binary),
    MULTICLASS: (_sum_multiclass, _measure_multiclass),
    REGRESSION: (_sum_regression, _measure_regression),
}
