"""The metrics that trainers report each epoch, in NumPy: for trainers whose library does not measure them itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from switchyard.components.errors import UserError
from switchyard.components.tasks import BINARY, MULTICLASS, MULTILABEL, MULTIOUTPUT, QUANTILE, RANKING, REGRESSION

# As in TFMA.
_BINS = 10_000
_TINY = 1e-15


def epoch_metrics(
    task: str,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    prefix: str = "",
    weights: np.ndarray | None = None,
    weighted: bool = False,
    targets: Sequence[str] = (),
) -> dict[str, float]:
    """Returns `loss`, then `accuracy` and `auc` (classification, labels) or `mae` (quantities), under the names of every trainer.

    Args:
        task: a task other than custom.
        scores: what `load_predictor`'s function returns, shape (B, outputs).
        labels: class indices or values, shape (B,); (B, labels) of several columns, (B, 3) of a ranking.
        prefix: `val_` for the eval split.
        weights: weights of the rows in the loss, shape (B,); the weighted losses are divided by the number of rows.
        weighted: whether the other metrics weigh the rows, too, as with sample weights: the source's `weighted`.
        targets: the quantiles of a quantile task, see `ModelSpec`.

    Raises:
        UserError: the task is another one.
    """
    scores = scores.astype(np.float64)
    of_metrics = weights if weighted else None
    found: dict[str, float] = {}
    if task in (REGRESSION, MULTIOUTPUT):
        error = scores - labels.reshape(len(labels), -1)
        losses = (error**2).mean(axis=1)
        found = {"mae": float(np.average(np.abs(error).mean(axis=1), weights=of_metrics))}
    elif task == MULTILABEL:
        losses = -np.log(np.where(labels == 1, scores, 1 - scores).clip(_TINY)).mean(axis=1)
        right = np.average(((scores >= 0.5) == labels).mean(axis=1), weights=of_metrics)
        each = zip(scores.T, labels.T, strict=True)
        areas = [_auc(s, y.astype(np.int64), of_metrics) for s, y in each if 0 < y.sum() < len(y)]
        found = {"accuracy": float(right), "auc": float(np.mean(areas)) if areas else 0.0}
    elif task == QUANTILE:
        error, q = labels.reshape(len(labels), -1) - scores, np.array([float(t) for t in targets])
        losses = np.maximum(q * error, (q - 1) * error).mean(axis=1)
    elif task == RANKING:
        losses = labels[:, 2] * listwise(scores[:, 0], labels)[0]
    elif task == MULTICLASS:
        losses = -np.log(scores[np.arange(len(labels)), labels].clip(_TINY))
        found = {"accuracy": float(np.average(scores.argmax(axis=1) == labels, weights=of_metrics))}
    elif task == BINARY:
        of_class = np.where(labels == 1, scores[:, 0], 1 - scores[:, 0])
        losses = -np.log(of_class.clip(_TINY))
        right = np.average((scores[:, 0] >= 0.5) == labels, weights=of_metrics)
        found = {"accuracy": float(right), "auc": _auc(scores[:, 0], labels, of_metrics)}
    else:
        raise UserError(f"task: epoch_metrics has no metrics of a {task} task; compute its loss in the trainer")
    loss = float((losses if weights is None else losses * weights).mean())
    return {f"{prefix}{name}": value for name, value in {"loss": loss, **found}.items()}


def listwise(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the listwise loss of each row's query, see `losses`, the row's probability, and its share of the relevance.

    All of shape (B,); of a query without a relevant row all are 0.

    Args:
        scores: shape (B,).
        labels: shape (B, 3), see `queries.QueryExamples`; the rows of a query one after the other.
    """
    starts = np.flatnonzero(np.r_[True, np.diff(labels[:, 1]) != 0])
    query = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(labels)]))
    shifted = scores - np.maximum.reduceat(scores, starts)[query]
    logarithm = shifted - np.log(np.add.reduceat(np.exp(shifted), starts))[query]
    total = np.add.reduceat(labels[:, 0].astype(np.float64), starts)[query]
    share = labels[:, 0] / np.where(total > 0, total, 1.0)
    losses = np.add.reduceat(-share * logarithm, starts)[query]
    return losses, np.exp(logarithm) * (total > 0), share


def _auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> float:
    """Returns the area under the ROC curve over 10,000 thresholds; 0 without rows of both classes."""
    bins = np.nan_to_num(scores * (_BINS - 1)).astype(np.int64)
    each = np.ones(len(labels)) if weights is None else weights
    hits, misses = (np.bincount(bins, weights=of * each, minlength=_BINS) for of in (labels, 1 - labels))
    pairs = hits.sum() * misses.sum()
    below = np.cumsum(misses) - misses
    return float((hits * (below + misses / 2)).sum() / pairs) if pairs else 0.0
