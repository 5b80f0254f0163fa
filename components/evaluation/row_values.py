"""Metrics that are means of a value of each row, for the tasks that have no others: one formula for all rows and every slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from switchyard.components.tasks import CUSTOM, MULTILABEL, MULTIOUTPUT, QUANTILE


def pinball(labels: np.ndarray, scores: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Returns the pinball loss of each row and quantile q, max(q * (y - s), (q - 1) * (y - s)), float64 (n, quantiles).

    Its expectation is smallest at the quantile q of y (Koenker and Bassett, Regression quantiles, 1978).

    Args:
        labels: y, (n,).
        scores: s, (n, quantiles).
        quantiles: between 0 and 1.
    """
    error: np.ndarray = np.asarray(labels[:, np.newaxis] - scores.astype(np.float64))
    q = np.asarray(quantiles)
    return np.asarray(np.maximum(q * error, (q - 1) * error))


def _quantile(labels: np.ndarray, scores: np.ndarray, targets: Sequence[str]) -> dict[str, np.ndarray]:
    inside = (scores[:, 0] <= labels) & (labels <= scores[:, -1])
    return {
        "loss": pinball(labels, scores, [float(t) for t in targets]).mean(axis=1),
        "coverage": inside.astype(np.float64),
    }


def _multioutput(labels: np.ndarray, scores: np.ndarray, targets: Sequence[str]) -> dict[str, np.ndarray]:
    error: np.ndarray = np.asarray(labels - scores.astype(np.float64))
    return _each({"loss": error**2, "mae": np.abs(error)}, targets)


def _multilabel(labels: np.ndarray, scores: np.ndarray, targets: Sequence[str]) -> dict[str, np.ndarray]:
    p, positive = scores.astype(np.float64), labels == 1
    loss = -np.log(np.where(positive, p, 1 - p))
    return _each({"loss": loss, "accuracy": (positive == (p >= 0.5)).astype(np.float64)}, targets)


def _each(values: Mapping[str, np.ndarray], targets: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the mean of the labels, and the value of each label, of values (n, labels)."""
    means = {name: of.mean(axis=1) for name, of in values.items()}
    return means | {f"{name}/{t}": of[:, i] for name, of in values.items() for i, t in enumerate(targets)}


# Task -> function from labels (n,) or (n, labels), scores (n, outputs) and targets to metric -> values of the rows, float64 (n,).
ROW_VALUES: dict[str, Callable[[np.ndarray, np.ndarray, Sequence[str]], dict[str, np.ndarray]]] = {
    QUANTILE: _quantile,
    CUSTOM: lambda labels, scores, targets: {},
    MULTIOUTPUT: _multioutput,
    MULTILABEL: _multilabel,
}
