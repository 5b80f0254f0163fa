"""The trivial predictor, which uses the label alone and no feature; every champion must significantly beat it.

Its scores are constant over all rows; those of windows repeat the label's last past value where that is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from switchyard.components.evaluation.bootstrap import Rows, interval, replicates, unit_weights, weighted_metrics
from switchyard.components.evaluation.results import ModelResult
from switchyard.components.metrics import PRIMARY, base, direction
from switchyard.components.tasks import BINARY, MULTICLASS, MULTILABEL, MULTIOUTPUT, QUANTILE, RANKING, REGRESSION, TASKS

_NAME = "trivial"
_EPSILON = 1e-7


@dataclass(frozen=True)
class Trivial:
    """The trivial predictor on the rows that a candidate was evaluated on.

    Attributes:
        metric: metric of the comparison: the deciding one, or the task's primary metric if nothing can beat the trivial value
            (the recall of always predicting positive) or the bootstrap does not support the deciding one.
        value: the trivial predictor's value of the metric.
        samples: the value in each replicate, with the same row weights as the candidates'; None without replicates.
    """

    metric: str
    value: float
    samples: np.ndarray | None

    @classmethod
    def of(cls, rows: Rows, metric: str) -> Trivial:
        """Returns the trivial predictor measured on the rows; `metric` decides between models."""
        scores = trivial_scores(rows.task, rows.labels, metric, rows.targets, rows.weights, rows.last)
        known = weighted_metrics(rows.task, rows.labels, scores, rows.targets)
        chosen = metric if metric in known and metric != "recall" else PRIMARY[rows.task]
        if chosen != metric:
            scores = trivial_scores(rows.task, rows.labels, chosen, rows.targets, rows.weights, rows.last)
        of_units = unit_weights(rows.task, rows.labels, rows.weights)
        value = float(weighted_metrics(rows.task, rows.labels, scores, rows.targets)[chosen](of_units))
        its_rows = replace(rows, scores={_NAME: scores}, there={})
        return cls(chosen, value, replicates(its_rows, [chosen])[_NAME].get(chosen))

    def not_better(self, model: ModelResult, samples: np.ndarray | None, confidence: float | None) -> str:
        """Returns the reason why a model is not significantly better than the trivial predictor, or an empty string.

        Args:
            model: result of a candidate.
            samples: the candidate's metric in each replicate.
            confidence: confidence of the two-sided interval of the difference, which must be above 0; None compares the values.
        """
        metric, value = self.metric, model.metrics.get(self.metric, math.nan)
        values = f"{metric} is {value:.4f}, the trivial predictor's {self.value:.4f}"
        if confidence is None:
            return "" if direction(metric) * (value - self.value) > 0 else f"{values}: not better"
        drawn = None if samples is None or self.samples is None else samples - self.samples
        bounds = None if drawn is None else interval(direction(metric) * drawn, confidence)
        if bounds is None or math.isnan(value):
            return f"{values}: too few rows to compute a confidence, so the model is not promoted"
        if bounds[0] > 0:
            return ""
        return (
            f"{values}: not significantly better (improvement {direction(metric) * (value - self.value):+.4f}, {confidence:.0%} "
            f"interval {bounds[0]:+.4f} to {bounds[1]:+.4f}; it must lie above 0). More rows or better features are needed"
        )


def trivial_scores(
    task: str,
    labels: np.ndarray,
    metric: str,
    targets: Sequence[str] = (),
    weights: np.ndarray | None = None,
    last: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the best scores by a metric among those that are constant over all rows, and `last`, float64 (n, outputs).

    In float64, as float32 would lose the differences of large labels.
    """
    best = np.asarray(_BEST[task](labels, metric, targets, weights), dtype=np.float64)
    same = np.tile(best.clip(_EPSILON, 1 - _EPSILON) if TASKS[task].has_probabilities else best, (len(labels), 1))
    if last is None:
        return same
    repeated = np.tile(last.astype(np.float64)[:, np.newaxis], (1, same.shape[1]))
    of_units, losses = unit_weights(task, labels, weights), []
    for scores in (same, repeated):
        measured = weighted_metrics(task, labels, scores, targets)
        losses.append(-direction(metric) * float(measured[metric if metric in measured else PRIMARY[task]](of_units)))
    return repeated if losses[1] < losses[0] else same


def _binary(labels: np.ndarray, metric: str, targets: Sequence[str], weights: np.ndarray | None) -> list[float]:
    # Without positive predictions precision is undefined and F1 is 0.
    return [1.0 if metric in ("precision", "recall", "f1") else float(np.average(labels == 1, weights=weights))]


def _multiclass(labels: np.ndarray, metric: str, targets: Sequence[str], weights: np.ndarray | None) -> np.ndarray:
    return np.bincount(labels.astype(int), weights) / (len(labels) if weights is None else weights.sum())


def _regression(labels: np.ndarray, metric: str, targets: Sequence[str], weights: np.ndarray | None) -> list[float]:
    if metric != "mae":
        return [float(np.average(labels, weights=weights))]
    return [float(np.median(labels) if weights is None else _quantiles(labels, [0.5], weights)[0])]


def _quantile(labels: np.ndarray, metric: str, targets: Sequence[str], weights: np.ndarray | None) -> np.ndarray:
    # The smallest label with at least this share of labels up to it; interpolated quantiles have a larger loss on few rows.
    return _quantiles(labels, [float(t) for t in targets], weights)


def _quantiles(labels: np.ndarray, shares: Sequence[float], weights: np.ndarray | None) -> np.ndarray:
    """Returns the smallest label with at least each share of the weights up to it."""
    if weights is None:
        return np.asarray(np.quantile(labels, shares, method="inverted_cdf"))
    order = np.argsort(labels)
    upto = np.cumsum(weights[order])
    return np.asarray(labels[order][np.searchsorted(upto, np.asarray(shares) * upto[-1])])


def _multioutput(labels: np.ndarray, metric: str, targets: Sequence[str], weights: np.ndarray | None) -> list[float]:
    return [_regression(column, base(metric), targets, weights)[0] for column in labels.T]


def _multilabel(labels: np.ndarray, metric: str, targets: Sequence[str], weights: np.ndarray | None) -> np.ndarray:
    return np.asarray(np.average(labels, axis=0, weights=weights))


# Task -> function from labels, the metric, the targets and the weights to the best scores of all rows, (outputs,).
_BEST: dict[str, Callable[[np.ndarray, str, Sequence[str], np.ndarray | None], np.ndarray | list[float]]] = {
    BINARY: _binary,
    MULTICLASS: _multiclass,
    REGRESSION: _regression,
    QUANTILE: _quantile,
    MULTIOUTPUT: _multioutput,
    MULTILABEL: _multilabel,
    # Equal scores count as the mean over all orders.
    RANKING: lambda labels, metric, targets, weights: [0.0],
}
