"""The losses in PyTorch. Mirrors `tensorflow/losses.py`; the formulas: `components.training.losses`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from switchyard.components.errors import UserError
from switchyard.components.training.losses import SMOOTHED, Loss, check_rows
from switchyard.components.training.names import LOSSES
from switchyard.components.user_code.loading import blamed, folder_of

RowLosses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# Below this probability of an error, a row's focal loss counts as 0; its gradient would be undefined for gamma below 1.
_LEAST = 1e-7


def row_losses(task: str, loss: Loss, smoothing: float = 0.0) -> RowLosses:
    """Returns a function of labels and outputs (B, outputs), float32, that returns the loss of each row, shape (B,).

    Labels are of shape (B,), or (B, labels) of several columns; outputs of a `custom` task (B, *output_shape).
    """
    if loss.function:
        return partial(_own, loss, loss.function)
    if not LOSSES[task]:
        raise UserError(
            "trainer.loss: build_model returned a model without a training of its own, and a custom task has no loss; give "
            "yours, 'losses.py:my_loss', or define build_loss(spec)"
        )
    smoothed = {"smoothing": smoothing} if loss.name in SMOOTHED else {}
    return partial(_LOSSES[task, loss.name], **loss.parameters, **smoothed)


def _own(loss: Loss, function: Callable[..., Any], labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    given = labels.reshape(-1, *loss.label_shape) if loss.label_shape is not None else labels if loss.labelled else None
    with blamed(f"trainer.loss: {loss.name} failed: ", folder_of(function)):
        losses: torch.Tensor = function(given, outputs, **loss.parameters)
    check_rows(loss, getattr(losses, "shape", ()), len(labels))
    return losses


def _binary_cross_entropy(labels: torch.Tensor, outputs: torch.Tensor, smoothing: float) -> torch.Tensor:
    target = labels * (1.0 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(outputs[:, 0], target.to(outputs.dtype), reduction="none")


def _cross_entropy(labels: torch.Tensor, outputs: torch.Tensor, smoothing: float) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels, reduction="none", label_smoothing=smoothing)


def _binary_focal(labels: torch.Tensor, outputs: torch.Tensor, gamma: float, smoothing: float) -> torch.Tensor:
    wrong = torch.sigmoid(_sign(labels, outputs) * -outputs[:, 0])
    return wrong.clamp(min=_LEAST) ** gamma * _binary_cross_entropy(labels, outputs, smoothing)


def _focal(labels: torch.Tensor, outputs: torch.Tensor, gamma: float, smoothing: float) -> torch.Tensor:
    wrong = 1.0 - outputs.softmax(dim=1).gather(1, labels[:, None])[:, 0]
    return wrong.clamp(min=_LEAST) ** gamma * _cross_entropy(labels, outputs, smoothing)


def _binary_hinge(labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    return functional.relu(1.0 - _sign(labels, outputs) * outputs[:, 0])


def _hinge(labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    own = functional.one_hot(labels, outputs.shape[1]).bool()
    others = outputs.masked_fill(own, -torch.inf).amax(dim=1)
    return functional.relu(1.0 + others - outputs.gather(1, labels[:, None])[:, 0])


def _mse(labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(outputs[:, 0], labels.to(outputs.dtype), reduction="none")


def _mae(labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    return functional.l1_loss(outputs[:, 0], labels.to(outputs.dtype), reduction="none")


def _huber(labels: torch.Tensor, outputs: torch.Tensor, delta: float) -> torch.Tensor:
    return functional.huber_loss(outputs[:, 0], labels.to(outputs.dtype), reduction="none", delta=delta)


def _poisson(labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    return functional.poisson_nll_loss(outputs[:, 0], labels.to(outputs.dtype), log_input=True, reduction="none")


def _quantile(labels: torch.Tensor, outputs: torch.Tensor, quantile: float) -> torch.Tensor:
    error = labels.to(outputs.dtype) - outputs[:, 0]
    return torch.maximum(quantile * error, (quantile - 1.0) * error)


def _pinball(labels: torch.Tensor, outputs: torch.Tensor, quantiles: list[float]) -> torch.Tensor:
    error, q = labels.to(outputs.dtype)[:, None] - outputs, outputs.new_tensor(quantiles)
    return torch.maximum(q * error, (q - 1.0) * error).mean(dim=1)


def _mean_of_labels(loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def mean(labels: torch.Tensor, outputs: torch.Tensor, **parameters: float) -> torch.Tensor:
        return loss(labels.reshape(-1), outputs.reshape(-1, 1), **parameters).reshape(outputs.shape).mean(dim=1)

    return mean


def _listwise(labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    relevance, weights, alike = labels[:, 0], labels[:, 2], labels[:, 1, None] == labels[:, 1]
    own = alike.to(outputs.dtype)
    total = own @ relevance
    spread = torch.logsumexp(outputs[:, 0].masked_fill(~alike, -torch.inf), dim=1)
    return weights * (spread - own @ (relevance * outputs[:, 0]) / total.clamp(min=_LEAST)) * (total > 0)


def _pairwise(labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    relevance, weights, alike = labels[:, 0], labels[:, 2], labels[:, 1, None] == labels[:, 1]
    own, pairs = alike.to(outputs.dtype), (alike & (relevance[:, None] > relevance)).to(outputs.dtype)
    losses = pairs * functional.softplus(outputs[:, 0] - outputs)
    return weights * (own @ losses.sum(dim=1)) / (own @ pairs.sum(dim=1)).clamp(min=1.0)


def _sign(labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    return labels.to(outputs.dtype) * 2.0 - 1.0


_LOSSES: dict[tuple[str, str], Callable[..., torch.Tensor]] = {
    ("binary", "cross_entropy"): _binary_cross_entropy,
    ("binary", "focal"): _binary_focal,
    ("binary", "hinge"): _binary_hinge,
    ("multiclass", "cross_entropy"): _cross_entropy,
    ("multiclass", "focal"): _focal,
    ("multiclass", "hinge"): _hinge,
    ("regression", "mse"): _mse,
    ("regression", "mae"): _mae,
    ("regression", "huber"): _huber,
    ("regression", "poisson"): _poisson,
    ("regression", "quantile"): _quantile,
    ("quantile", "pinball"): _pinball,
    ("ranking", "listwise"): _listwise,
    ("ranking", "pairwise"): _pairwise,
}
# Of several labels: the mean of the losses that each would have as the label of a task of its own.
_LOSSES |= {("multioutput", name): _mean_of_labels(_LOSSES["regression", name]) for name in LOSSES["multioutput"]}
_LOSSES |= {("multilabel", name): _mean_of_labels(_LOSSES["binary", name]) for name in LOSSES["multilabel"]}
