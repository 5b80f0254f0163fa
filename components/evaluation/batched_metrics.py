"""TFMA's metrics of batches of rows: its computations, formulas and results; the sums over rows by NumPy.

TFMA's evaluator calls each metric's combiner once for each row and slice, in Python, also where it is given batches.
Here a whole batch becomes the accumulator that the combiner would have reached row by row; merging accumulators, the
values and everything that is derived from them stay TFMA's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import binary_confusion_matrices, metric_specs, metric_types
from tensorflow_model_analysis.proto import config_pb2

from switchyard.components.compat.tfma_combiners import summary
from switchyard.components.evaluation.slices import SliceColumn, SliceKey, slices_of

Computed = tuple[SliceKey, dict[Any, Any]]


@dataclass(frozen=True)
class Batch:
    """Rows with what was predicted for them.

    Attributes:
        labels: class index, or value; float64 (B,).
        predictions: model -> probabilities or values, float32 (B, outputs).
        features: other values of the rows, by name, (B,).
        slices: the columns to slice by.
        judged: model, or name among `features` -> the rows that count for it, bool (B,); of others all rows do.
    """

    labels: np.ndarray
    predictions: Mapping[str, np.ndarray]
    features: Mapping[str, np.ndarray]
    slices: Mapping[str, SliceColumn]
    judged: Mapping[str, np.ndarray] = field(default_factory=dict)

    def take(self, indices: np.ndarray) -> Batch:
        """Returns some of the rows, which are not sliced again."""
        predictions = {m: p[indices] for m, p in self.predictions.items()}
        features = {n: v[indices] for n, v in self.features.items()}
        return Batch(self.labels[indices], predictions, features, {}, {n: m[indices] for n, m in self.judged.items()})

    def of(self, model: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns labels and a model's predictions, of its rows; TFMA has no name for a model that is alone."""
        predictions = self.predictions[model] if model else next(iter(self.predictions.values()))
        rows = self.judged.get(model)
        return (self.labels, predictions) if rows is None else (self.labels[rows], predictions[rows])

    def feature(self, name: str) -> np.ndarray:
        """Returns a feature's values, of its rows."""
        values, rows = self.features[name], self.judged.get(name)
        return values if rows is None else values[rows]


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
    _blank(found)
    return key, {k: v for k, v in found.items() if not k.name.startswith("_") or k.name.startswith("__")}


def _blank(found: dict[Any, Any]) -> None:
    """Makes NaN of what does not exist, where TFMA says 0: the AUC of one class, the precision of who never says yes."""
    matrices_ = {k: v for k, v in found.items() if isinstance(v, binary_confusion_matrices.Matrices)}
    for key, value in matrices_.items():
        at = value.thresholds.index(0.5) if 0.5 in value.thresholds else None
        if at is None:
            continue
        tp, fp, tn, fn = (getattr(value, n)[at] for n in ("tp", "fp", "tn", "fn"))
        missing = {
            "auc": not (tp + fn and fp + tn),
            "auc_precision_recall": not tp + fn,
            "recall": not tp + fn,
            "precision": not tp + fp,
            "f1": not 2 * tp + fp + fn,
        }
        for other in found:
            if other.model_name == key.model_name and missing.get(other.name):
                found[other] = float("nan")


def _only(computed: Computed, *, plots: bool) -> Computed:
    key, found = computed
    return key, {k: v for k, v in found.items() if isinstance(k, metric_types.PlotKey) == plots}


class SumBatches(beam.CombineFn):
    """TFMA's combiners side by side, which take a `Batch` at a time.

    Raises:
        TypeError: a combiner is of a metric without a rule to sum its batches.
    """

    def __init__(self, combiners: Sequence[Any]) -> None:
        self._combiners = list(combiners)
        for combiner in self._combiners:
            summary(combiner)

    def create_accumulator(self) -> tuple[Any, ...]:
        """See the base class."""
        return tuple(c.create_accumulator() for c in self._combiners)

    def add_input(self, accumulator: tuple[Any, ...], batch: Batch) -> tuple[Any, ...]:
        """See the base class."""
        return self.merge_accumulators([accumulator, tuple(summary(c)(c, batch) for c in self._combiners)])

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
