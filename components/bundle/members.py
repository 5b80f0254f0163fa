"""The members of an ensemble in its bundle: what each of them is, and the weighted mean of their scores.

`members/0`, `members/1`, ... hold what the bundle of a single model has for itself: `model/`, and `code/` with a custom trainer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

FOLDER = "members"
_TOLERANCE = 1e-6
_Predict = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Member:
    """A member of an ensemble.

    Attributes:
        name: name of its trainer.
        predictor: see `BundleInfo.predictor`.
        weight: its share of the scores, above 0; the weights of an ensemble sum to 1.
    """

    name: str
    predictor: str
    weight: float


def problem(members: Sequence[Member]) -> str:
    """Returns what is inconsistent in the members of an ensemble; empty if nothing is, or there are none."""
    if len({m.name for m in members}) < len(members):
        return "its members have duplicate names"
    weights = [m.weight for m in members]
    if members and not (all(0 < w <= 1 for w in weights) and math.isclose(sum(weights), 1, abs_tol=_TOLERANCE)):
        return f"its members' weights are {str(weights)[:60]}"
    return ""


def averaged(models: Sequence[tuple[_Predict, float]], *, ascending: bool) -> _Predict:
    """Returns the predictor of the weighted mean of several predictors' scores; of one, itself.

    Args:
        models: predictors, see `Trainer.load_predictor`, and their weights.
        ascending: whether the scores of a row are sorted, see `Task.ascending`: each model's, before their mean.
    """
    if len(models) == 1:
        return models[0][0]

    def predict(features: Mapping[str, np.ndarray]) -> np.ndarray:
        parts = []
        for model, weight in models:
            scores = np.asarray(model(features), dtype=np.float32)
            parts.append(weight * (np.sort(scores, axis=1) if ascending else scores).astype(np.float64))
        return np.asarray(np.sum(parts, axis=0))

    return predict
