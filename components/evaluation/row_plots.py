"""Computes plots and metrics from rows or the confusion matrix where TFMA has none for a task."""

from __future__ import annotations

import numpy as np

from switchyard.components.evaluation.bootstrap import Rows
from switchyard.components.evaluation.results import Plots
from switchyard.components.tasks import MULTICLASS, MULTILABEL, MULTIOUTPUT, QUANTILE, RANKING, REGRESSION, middle

_THRESHOLDS = np.linspace(0, 1, 101)
_MOST_POINTS = 400
_MOST_RANKS = 20


def row_plots(rows: Rows, model: str, classes: int) -> Plots:
    """Returns the plots that TFMA does not provide.

    For multiclass: `one_vs_rest` (rows of class, threshold, tp, fp, tn, fn) and `calibration` of the chosen class's
    probability. For quantities: `fit`, a sample of (label, prediction). For several labels of 0 and 1: `calibration` of all
    together. For quantiles: `quantiles` (rows of quantile, share of labels up to it), and `fit` with the quantile nearest to the
    median. For a ranking: `ranks` (rank, and the mean relevance there, by the model and in the best order). Rows without finite
    predictions are left out; counts and shares are of the sample weights.
    """
    rows = rows.where(np.isfinite(rows.scores[model]).all(axis=1))
    if not rows.each.any():
        return {}
    scores = rows.scores[model].astype(np.float64)
    found: Plots = {}
    if rows.task == MULTICLASS:
        found["one_vs_rest"] = _one_vs_rest(rows.labels.astype(int), scores, classes, rows.each)
        found["calibration"] = _calibration(scores.max(axis=1), scores.argmax(axis=1) == rows.labels, rows.each)
    elif rows.task in (REGRESSION, MULTIOUTPUT):
        found["fit"] = _fit(rows.labels.ravel(), scores.ravel())
    elif rows.task == MULTILABEL:
        found["calibration"] = _calibration(scores.ravel(), rows.labels.ravel(), np.repeat(rows.each, scores.shape[1]))
    elif rows.task == RANKING:
        found["ranks"] = _ranks(rows.labels, scores[:, 0])
    elif rows.task == QUANTILE:
        shares = np.average(rows.labels[:, np.newaxis] <= scores, axis=0, weights=rows.weights)
        below = [{"quantile": float(q), "share": float(s)} for q, s in zip(rows.targets, shares, strict=True)]
        found |= {"quantiles": below, "fit": _fit(rows.labels, scores[:, middle(rows.targets)])}
    return found


def _ranks(labels: np.ndarray, scores: np.ndarray) -> list[dict[str, float]]:
    found = []
    for by in (scores, labels[:, 0]):
        order = np.lexsort((-by, labels[:, 1]))
        sizes = np.unique(labels[:, 1], return_counts=True)[1]
        rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        found.append(np.bincount(rank, labels[order, 0])[:_MOST_RANKS] / np.bincount(rank)[:_MOST_RANKS])
    ours, best = found
    return [{"rank": i + 1.0, "relevance": float(ours[i]), "best": float(best[i])} for i in range(len(ours))]


def _fit(labels: np.ndarray, predictions: np.ndarray) -> list[dict[str, float]]:
    chosen = np.random.default_rng(0).permutation(len(labels))[:_MOST_POINTS]
    return [{"label": float(labels[i]), "prediction": float(predictions[i])} for i in chosen]


def _one_vs_rest(labels: np.ndarray, scores: np.ndarray, classes: int, weights: np.ndarray) -> list[dict[str, float]]:
    found = []
    for k in range(classes):
        tp, positives = _above(scores[labels == k, k], weights[labels == k])
        fp, negatives = _above(scores[labels != k, k], weights[labels != k])
        found += [
            {
                "class": float(k),
                "threshold": float(t),
                "tp": float(a),
                "fp": float(b),
                "tn": float(negatives - b),
                "fn": float(positives - a),
            }
            for t, a, b in zip(_THRESHOLDS, tp, fp, strict=True)
        ]
    return found


def _above(scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the weight of the scores above each threshold, and that of all."""
    order = np.argsort(scores)
    upto = np.append(0.0, np.cumsum(weights[order]))
    return upto[-1] - upto[np.searchsorted(scores[order], _THRESHOLDS, side="right")], float(upto[-1])


def _calibration(p: np.ndarray, right: np.ndarray, weights: np.ndarray) -> list[dict[str, float]]:
    """Returns mean probability, share of the weights where it holds, and weight, in ten bins of the probability."""
    bins = np.minimum((p * 10).astype(int), 9)
    found = []
    for b in np.unique(bins[weights > 0]):
        its = weights * (bins == b)
        means = {name: float(np.average(of, weights=its)) for name, of in (("prediction", p), ("label", right))}
        found.append({**means, "count": float(its.sum())})
    return found


def shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Returns parts / wholes, 0 where the whole is 0; sums of weights may be as small as the user's weights."""
    wholes = np.broadcast_to(wholes, np.shape(parts))
    found: np.ndarray = np.divide(parts, wholes, out=np.zeros(np.shape(parts)), where=wholes > 0)
    return found


def confusion_metrics(plots: Plots, classes: int) -> dict[str, float]:
    """Returns precision, recall and F1 averaged over the classes, from TFMA's multiclass confusion matrix.

    Args:
        plots: plots of a model.
        classes: number of classes in the data; other classes that a champion predicts count as errors and are not averaged.
    """
    entries = plots.get("multiclass")
    if not entries:
        return {}
    n = max(classes, 1 + int(max(max(e["actual"], e["predicted"]) for e in entries)))
    matrix = np.zeros((n, n))
    for e in entries:
        matrix[int(e["actual"]), int(e["predicted"])] += e["count"]
    right = np.diag(matrix)
    precision, recall = shares(right, matrix.sum(axis=0)), shares(right, matrix.sum(axis=1))
    f1 = shares(2 * precision * recall, precision + recall)
    # The three metrics are undefined for a class that is neither present nor predicted.
    there = matrix.sum(axis=0) + matrix.sum(axis=1) > 0
    there[classes:] = False
    return {
        "precision_macro": float(precision[there].mean()),
        "recall_macro": float(recall[there].mean()),
        "f1_macro": float(f1[there].mean()),
    }
