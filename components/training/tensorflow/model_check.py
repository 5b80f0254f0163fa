"""Checks a user's Keras model before training. Mirrors `pytorch/model_check.py`."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from switchyard.components.errors import UserError
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.model_check import check_outputs, first_rows, probe, refuse_own_training, refuse_replaced
from switchyard.components.training.tensorflow.losses import row_losses

# Operations that do not change the range of values, by TensorFlow's names.
_PASSED = ("Identity", "Reshape", "Squeeze", "ExpandDims", "Cast", "StridedSlice", "StopGradient", "EnsureShape", "Transpose")
_OPERATIONS = {
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
    "Tanh": "tanh",
    "Relu": "relu",
    "Relu6": "relu6",
    "Softplus": "softplus",
    "Exp": "exp",
    "Abs": "abs",
    "Square": "square",
    "LogSoftmax": "log_softmax",
}
_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")


def check_training(model: keras.Model, request: TrainRequest, *, by_hand: bool) -> None:
    """Raises UserError for a model whose own training, by `compile()` or steps, is not followed, or for what it replaces.

    Args:
        model: the user's model, before the trainer compiles it.
        request: the training's request.
        by_hand: whether `Replicas` trains it, which does not call the model's step methods.
    """
    if model.compiled:
        refuse_replaced(request, "a compiled model")
        if model.run_eagerly:
            refuse_own_training(["run_eagerly"], "Remove it from compile().")
    where = "(on a TPU, on several devices, or with accumulate_steps)"
    own = [f"{n} {where}" for n in _STEPS if getattr(type(model), n) is not getattr(keras.Model, n)] if by_hand else []
    refuse_own_training(own, "Remove it, or train on one CPU or GPU without accumulate_steps.")


def refuse_averages(model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Raises UserError for an optimizer whose averages of weights replace the weights after the last epoch only."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    swapped = any(isinstance(callback, keras.callbacks.SwapEMAWeights) for callback in callbacks)
    if optimizer.use_ema and not optimizer.ema_overwrite_frequency and not swapped:
        raise UserError(
            "trainer.model: with use_ema Keras replaces the weights after the last epoch, and the best epoch's are exported; set "
            "the optimizer's ema_overwrite_frequency, after which steps the averages replace the weights"
        )


def check_loss(model: keras.Model, request: TrainRequest) -> None:
    """Raises UserError for a loss of the user's own that fails on rows of the data, or returns no loss per row."""
    if model.compiled:
        return
    features, labels = first_rows(request.train)
    row_losses(request.spec.task, request.loss)(tf.constant(labels), model(features, training=False))


def check_logits(model: keras.Model, request: TrainRequest) -> None:
    """Raises UserError for a model whose outputs are not logits."""
    features, labels = first_rows(request.train)
    outputs = probe(lambda batch: np.asarray(model(batch, training=False), dtype=np.float32), features)
    check_outputs(_last_operation(model, request), outputs, labels, request)


def _last_operation(model: keras.Model, request: TrainRequest) -> str:
    """Returns the operation that produces the model's output; empty if it is not in `_OPERATIONS`."""
    signature = {f.name: tf.TensorSpec((None, *f.shape), f.dtype) for f in request.spec.features}
    traced = tf.function(lambda features: model(features, training=False), autograph=False).get_concrete_function(signature)
    operation = traced.outputs[0].op
    while operation.type in _PASSED and operation.inputs:
        operation = operation.inputs[0].op
    return _OPERATIONS.get(operation.type, "")
