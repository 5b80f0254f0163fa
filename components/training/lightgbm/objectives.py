"""What trees minimize where LightGBM has no objective: losses of several labels, and of queries.

Each round adds a tree for each label. LightGBM itself begins at the label's mean; here the scores begin at `start`, which the
exported model has in its first trees.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from switchyard.components.tasks import MULTILABEL, MULTIOUTPUT, RANKING
from switchyard.components.training.epoch_metrics import listwise

TASKS = (MULTIOUTPUT, MULTILABEL, RANKING)
# Bounds of a share: one of 0 or 1 has no finite logit.
_RAREST = 1e-6


class Objective:
    """The gradients of a task's loss, as LightGBM calls them.

    Args:
        task: one of `TASKS`.
        labels: (B, labels), or (B, 3) of a ranking.
        weights: weights of the rows, (B,), or None.
    """

    def __init__(self, task: str, labels: np.ndarray, weights: np.ndarray | None) -> None:
        self._task, self._labels, self._weights = task, labels.astype(np.float64), weights
        means = np.average(self._labels, axis=0, weights=weights)
        if task == RANKING:
            means = np.zeros(1)
        elif task == MULTILABEL:
            share = means.clip(_RAREST, 1 - _RAREST)
            means = np.log(share / (1 - share))
        self.start: np.ndarray = means

    def scores(self, raw: np.ndarray) -> np.ndarray:
        """Returns what is served, (B, outputs), for sums of trees, (B,) or (B, outputs)."""
        values = raw.reshape(len(raw), -1) + self.start
        return _sigmoid(values) if self._task == MULTILABEL else values

    def __call__(self, raw: np.ndarray, data: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns the gradient and the diagonal of the Hessian by the sums of trees, each of their shape."""
        scores = self.scores(raw)
        if self._task == RANKING:
            _, probability, share = listwise(scores[:, 0], self._labels)
            gradient, hessian = (probability - share)[:, None], (probability * (1 - probability))[:, None]
        else:
            gradient = scores - self._labels
            hessian = scores * (1 - scores) if self._task == MULTILABEL else np.ones_like(scores)
        if self._weights is not None:
            gradient, hessian = gradient * self._weights[:, None], hessian * self._weights[:, None]
        return gradient.reshape(raw.shape), hessian.reshape(raw.shape)


def exported(task: str, outputs: int) -> str:
    """Returns the objective of an exported model, by which LightGBM turns sums of trees into scores; empty for none."""
    return f"multiclassova num_class:{outputs} sigmoid:1" if task == MULTILABEL else ""


def _sigmoid(values: np.ndarray) -> np.ndarray:
    shares: np.ndarray = 1 / (1 + np.exp(-values.clip(-500, 500)))
    return shares
