"""The trivial predictor, which knows how the label is distributed and no feature: what every champion must surely beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from switchyard.components.evaluation.bootstrap import Rows, interval, replicates, weighted_metrics
from switchyard.components.evaluation.results import ModelResult
from switchyard.components.metrics import PRIMARY, direction

_NAME = "trivial"
_EPSILON = 1e-7


@dataclass(frozen=True)
class Trivial:
    """The trivial predictor on the rows that a candidate was evaluated on.

    Attributes:
        metric: that it is compared by: the one that decides, or the task's own where nothing can be better than trivial (the
            recall of saying yes always) or no replicates are drawn of the deciding one.
        value: its own.
        samples: its value in each replicate, of the same row weights as the candidates'.
    """

    metric: str
    value: float
    samples: np.ndarray

    @classmethod
    def of(cls, rows: Rows, metric: str) -> Trivial:
        """Measures it; `metric` is what decides between models."""
        scores = trivial_scores(rows.task, rows.labels, metric)
        known = weighted_metrics(rows.task, rows.labels, scores)
        chosen = metric if metric in known and metric != "recall" else PRIMARY[rows.task]
        if chosen != metric:
            scores = trivial_scores(rows.task, rows.labels, chosen)
        value = float(weighted_metrics(rows.task, rows.labels, scores)[chosen](np.ones(len(rows.labels))))
        return cls(chosen, value, replicates(Rows(rows.task, rows.labels, {_NAME: scores}), [chosen])[_NAME][chosen])

    def not_better(self, model: ModelResult, samples: np.ndarray | None, confidence: float | None) -> str:
        """Returns why a model is not surely better than it, or an empty string.

        Args:
            model: a candidate.
            samples: its metric in each replicate.
            confidence: of the two-sided interval of the difference, which must lie above 0; None: the bare difference must.
        """
        metric, value = self.metric, model.metrics.get(self.metric, math.nan)
        said = f"{metric} is {value:.4f}, the trivial predictor's {self.value:.4f}"
        if confidence is None:
            return "" if direction(metric) * (value - self.value) > 0 else f"{said}: not better"
        bounds = None if samples is None else interval(direction(metric) * (samples - self.samples), confidence)
        if bounds is None or math.isnan(value):
            return f"{said}: how sure the difference is cannot be told on so few rows, so it is not promoted"
        if bounds[0] > 0:
            return ""
        return (
            f"{said}: not surely better (change for the better {direction(metric) * (value - self.value):+.4f}, {confidence:.0%} "
            f"interval {bounds[0]:+.4f} to {bounds[1]:+.4f}; it must lie above 0). More rows or better features are needed"
        )


def trivial_scores(task: str, labels: np.ndarray, metric: str) -> np.ndarray:
    """Returns the scores that are best by a metric among those that are the same for all rows, float32 (n, outputs)."""
    if task == "regression":
        best = np.median(labels) if metric == "mae" else np.mean(labels)
        # In float64: of large labels float32 would lose the difference.
        return np.full((len(labels), 1), best)
    if task == "multiclass":
        shares = np.bincount(labels.astype(int)) / len(labels)
        return np.tile(shares.clip(_EPSILON, 1 - _EPSILON), (len(labels), 1))
    # Who never says yes has no precision and an F1 of 0.
    share = 1.0 if metric in ("precision", "recall", "f1") else float(np.mean(labels == 1))
    return np.full((len(labels), 1), np.clip(share, _EPSILON, 1 - _EPSILON))
