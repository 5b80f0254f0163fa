"""Finds the weights of an ensemble's members: of all means of their scores the one of the smallest loss on given rows.

The losses are those of the evaluation: cross-entropy, mean squared error, pinball loss. Each is convex in the weights, and each
member alone is one of the means, so that none has a smaller loss on these rows than the ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from switchyard.components.tasks import BINARY, MULTICLASS, MULTILABEL, QUANTILE

# A smaller weight costs a whole model's time and changes nothing that could be measured.
SMALLEST = 1e-3
_STEPS, _TINY = 200, 1e-12


@dataclass(frozen=True)
class Weights:
    """The weights of an ensemble.

    Attributes:
        by_member: name -> weight, 0 or at least `SMALLEST`; they sum to 1.
        loss: loss of the weighted mean.
        losses: name -> loss of the member alone.
    """

    by_member: dict[str, float]
    loss: float
    losses: dict[str, float]


def described(weights: Mapping[str, float]) -> str:
    """Returns the weights of members as a text: `0.6250 tensorflow, 0.3750 pytorch`."""
    return ", ".join(f"{weight:.4f} {name}" for name, weight in weights.items())


def find_weights(
    task: str,
    labels: np.ndarray,
    scores: Mapping[str, np.ndarray],
    targets: Sequence[str] = (),
    weights: np.ndarray | None = None,
) -> Weights:
    """Returns the weights of the smallest loss.

    Args:
        task: name of a task whose scores have means, see `Task.has_means`.
        labels: class index, or value, float64 (n,); (n, labels) of several columns.
        scores: member -> probabilities strictly between 0 and 1, or values, (n, outputs).
        targets: see `DatasetSummary.targets`.
        weights: sample weights, float64 (n,); None weighs all rows the same.
    """
    from scipy.optimize import minimize  # every run imports this module, few need it

    names = list(scores)
    loss, terms = _loss(task, labels, list(scores.values()), targets)
    shares = np.repeat(np.ones(len(labels)) if weights is None else weights, len(terms) // len(labels))
    shares = shares / shares.sum()

    def of(w: np.ndarray) -> float:
        return float(shares @ loss(terms @ w)[0])

    def gradient(w: np.ndarray) -> np.ndarray:
        return np.asarray((shares * loss(terms @ w)[1]) @ terms)

    alone = np.eye(len(names))
    even = np.full(len(names), 1 / len(names))
    scale = of(even) or 1.0
    found = minimize(
        lambda w: of(w) / scale,
        even,
        jac=lambda w: gradient(w) / scale,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(names),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(len(w))},
        options={"maxiter": _STEPS, "ftol": 1e-12},
    )
    # The members come first: of equal losses the one of a single model is taken.
    best = min((*alone, _kept(found.x), even), key=of)
    return Weights(dict(zip(names, map(float, best), strict=True)), of(best), dict(zip(names, map(of, alone), strict=True)))


def _kept(weights: np.ndarray) -> np.ndarray:
    """Returns weights without those that are smaller than `SMALLEST`, with the sum 1."""
    large = np.where(weights < SMALLEST, 0.0, weights)
    return np.asarray(large / large.sum())


_Loss = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _loss(task: str, labels: np.ndarray, scores: Sequence[np.ndarray], targets: Sequence[str]) -> tuple[_Loss, np.ndarray]:
    """Returns a function from the mean of the terms, (m,), to its losses and their derivatives, and the terms, (m, members).

    A row has as many terms as scores, one after the other; of a multiclass task one.
    """
    each = [s.astype(np.float64) for s in scores]
    if task == MULTICLASS:
        index = labels.astype(int)
        return _cross_entropy, np.stack([s[np.arange(len(index)), index] for s in each], axis=1)
    wide = labels.reshape(len(labels), -1)
    if task in (BINARY, MULTILABEL):
        return _cross_entropy, np.stack([np.where(wide == 1, s, 1 - s).ravel() for s in each], axis=1)
    errors = np.stack([(wide - s).ravel() for s in each], axis=1)  # the mean's error is the mean of the errors
    return (_pinball([float(t) for t in targets]) if task == QUANTILE else _squared), errors


def _cross_entropy(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positive = np.maximum(chosen, _TINY)  # the weights that are tried may all be 0
    return -np.log(positive), -1 / positive


def _squared(error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return error**2, 2 * error


def _pinball(quantiles: Sequence[float]) -> _Loss:
    q = np.asarray(quantiles)

    def loss(error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope = np.where(error > 0, np.tile(q, len(error) // len(q)), np.tile(q, len(error) // len(q)) - 1)
        return slope * error, slope

    return loss
