"""The losses in Keras. Mirrors `pytorch/losses.py`; the formulas: `components.training.losses`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from switchyard.components.errors import UserError
from switchyard.components.tasks import TASKS
from switchyard.components.training.losses import SMOOTHED, Loss, check_rows
from switchyard.components.training.names import LOSSES
from switchyard.components.user_code.loading import blamed, folder_of

RowLosses = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
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


class MeanLoss(keras.losses.Loss):
    """The mean of the rows' losses, for Keras' `compile`; weighted losses are divided by the number of rows."""

    def __init__(self, task: str, rows: RowLosses) -> None:
        super().__init__(reduction="sum_over_batch_size")
        self._shape = [-1] if not TASKS[task].wide_labels else None
        self._label, self._rows = "int64" if TASKS[task].has_classes else "float32", rows

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """See the base class; Keras passes labels as float32, (B,), (B, 1), (B, labels), or (B, 3) of a ranking."""
        labels = ops.reshape(y_true, self._shape) if self._shape else y_true
        return self._rows(ops.cast(labels, self._label), y_pred)


def _own(loss: Loss, function: Callable[..., Any], labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    given = ops.reshape(labels, [-1, *loss.label_shape]) if loss.label_shape is not None else labels if loss.labelled else None
    with blamed(f"trainer.loss: {loss.name} failed: ", folder_of(function)):
        losses = function(given, outputs, **loss.parameters)
    if labels.shape[0] is not None:  # unknown while a graph is traced; the trainer checks it before on rows of the data
        check_rows(loss, tuple(getattr(losses, "shape", ())), labels.shape[0])
    return losses


def _binary_cross_entropy(labels: Any, outputs: Any, smoothing: float) -> Any:
    return keras.losses.binary_crossentropy(_column(labels), outputs, from_logits=True, label_smoothing=smoothing)


def _cross_entropy(labels: Any, outputs: Any, smoothing: float) -> Any:
    if not smoothing:
        return keras.losses.sparse_categorical_crossentropy(labels, outputs, from_logits=True)
    classes = ops.one_hot(labels, outputs.shape[1])
    return keras.losses.categorical_crossentropy(classes, outputs, from_logits=True, label_smoothing=smoothing)


def _binary_focal(labels: Any, outputs: Any, gamma: float, smoothing: float) -> Any:
    wrong = ops.sigmoid(_sign(labels) * -outputs[:, 0])
    return ops.maximum(wrong, _LEAST) ** gamma * _binary_cross_entropy(labels, outputs, smoothing)


def _focal(labels: Any, outputs: Any, gamma: float, smoothing: float) -> Any:
    wrong = 1.0 - ops.sum(ops.softmax(outputs) * ops.one_hot(labels, outputs.shape[1]), axis=1)
    return ops.maximum(wrong, _LEAST) ** gamma * _cross_entropy(labels, outputs, smoothing)


def _binary_hinge(labels: Any, outputs: Any) -> Any:
    return ops.relu(1.0 - _sign(labels) * outputs[:, 0])


def _hinge(labels: Any, outputs: Any) -> Any:
    own = ops.one_hot(labels, outputs.shape[1])
    others = ops.max(ops.where(own > 0, -float("inf"), outputs), axis=1)
    return ops.relu(1.0 + others - ops.sum(outputs * own, axis=1))


def _mse(labels: Any, outputs: Any) -> Any:
    return keras.losses.mean_squared_error(_column(labels), outputs)


def _mae(labels: Any, outputs: Any) -> Any:
    return keras.losses.mean_absolute_error(_column(labels), outputs)


def _huber(labels: Any, outputs: Any, delta: float) -> Any:
    return keras.losses.huber(_column(labels), outputs, delta=delta)


def _poisson(labels: Any, outputs: Any) -> Any:
    return ops.exp(outputs[:, 0]) - ops.cast(labels, "float32") * outputs[:, 0]


def _quantile(labels: Any, outputs: Any, quantile: float) -> Any:
    error = ops.cast(labels, "float32") - outputs[:, 0]
    return ops.maximum(quantile * error, (quantile - 1.0) * error)


def _pinball(labels: Any, outputs: Any, quantiles: list[float]) -> Any:
    error, q = _column(labels) - outputs, ops.convert_to_tensor(quantiles, "float32")
    return ops.mean(ops.maximum(q * error, (q - 1.0) * error), axis=1)


def _mean_of_labels(loss: Callable[..., Any]) -> Callable[..., Any]:
    def mean(labels: Any, outputs: Any, **parameters: float) -> Any:
        losses = loss(ops.reshape(labels, [-1]), ops.reshape(outputs, [-1, 1]), **parameters)
        return ops.mean(ops.reshape(losses, [-1, outputs.shape[1]]), axis=1)

    return mean


def _listwise(labels: Any, outputs: Any) -> Any:
    relevance, weights, alike = labels[:, 0], labels[:, 2], ops.equal(labels[:, 1, None], labels[:, 1])
    own = ops.cast(alike, "float32")
    total = ops.matmul(own, relevance)
    spread = ops.logsumexp(ops.where(alike, outputs[:, 0], -float("inf")), axis=1)
    mean = ops.matmul(own, relevance * outputs[:, 0]) / ops.maximum(total, _LEAST)
    return weights * (spread - mean) * ops.cast(total > 0, "float32")


def _pairwise(labels: Any, outputs: Any) -> Any:
    relevance, weights, alike = labels[:, 0], labels[:, 2], ops.equal(labels[:, 1, None], labels[:, 1])
    own, pairs = ops.cast(alike, "float32"), ops.cast(ops.logical_and(alike, relevance[:, None] > relevance), "float32")
    losses = pairs * ops.softplus(outputs[:, 0] - outputs)
    return weights * ops.matmul(own, ops.sum(losses, axis=1)) / ops.maximum(ops.matmul(own, ops.sum(pairs, axis=1)), 1.0)


def _sign(labels: Any) -> Any:
    return ops.cast(labels, "float32") * 2.0 - 1.0


def _column(labels: Any) -> Any:
    return ops.cast(labels, "float32")[:, None]


_LOSSES: dict[tuple[str, str], Callable[..., Any]] = {
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
