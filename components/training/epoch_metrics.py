"""The metrics that trainers report each epoch, in NumPy: for trainers whose library does not measure them itself."""

from __future__ import annotations

import numpy as np

from switchyard.components.errors import UserError
from switchyard.components.tasks import BINARY, MULTICLASS, REGRESSION

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
) -> dict[str, float]:
    """Returns `loss`, then `accuracy` (classification), `auc` (binary) or `mae` (regression), under the names of every trainer.

    Args:
        task: binary, multiclass or regression.
        scores: what `load_predictor`'s function returns, shape (B, outputs).
        labels: class indices or values, shape (B,).
        prefix: `val_` for the eval split.
        weights: weights of the rows in the loss, shape (B,); the weighted losses are divided by the number of rows.
        weighted: whether the other metrics weigh the rows, too, as with sample weights: the source's `weighted`.

    Raises:
        UserError: the task is another one.
    """
    scores = scores.astype(np.float64)
    of_metrics = weights if weighted else None
    if task == REGRESSION:
        error = scores[:, 0] - labels
        losses, found = error**2, {"mae": float(np.average(np.abs(error), weights=of_metrics))}
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


def _auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> float:
    """Returns the area under the ROC curve over 10,000 thresholds; 0 without rows of both classes."""
    bins = np.nan_to_num(scores * (_BINS - 1)).astype(np.int64)
    each = np.ones(len(labels)) if weights is None else weights
    hits, misses = (np.bincount(bins, weights=of * each, minlength=_BINS) for of in (labels, 1 - labels))
    pairs = hits.sum() * misses.sum()
    below = np.cumsum(misses) - misses
    return float((hits * (below + misses / 2)).sum() / pairs) if pairs else 0.0
