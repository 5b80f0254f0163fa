"""Checks a user's Keras model before training. Mirrors `pytorch/model_check.py`."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.model_check import check_outputs, first_rows, probe, refuse_own_training
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


def check_training(model: keras.Model, *, by_hand: bool) -> None:
    """Raises UserError for a model with a training procedure of its own.

    Args:
        model: the user's model, before the trainer compiles it.
        by_hand: whether `Replicas` trains it, which does not call the model's step methods.
    """
    own = ["compile()"] if model.compiled else []
    if by_hand:
        own += [
            f"{n} (on a TPU, on several devices, or with accumulate_steps)"
            for n in _STEPS
            if getattr(type(model), n) is not getattr(keras.Model, n)
        ]
    refuse_own_training(own)


def check_loss(model: keras.Model, request: TrainRequest) -> None:
    """Raises UserError for a loss of the user's own that fails on rows of the data, or returns no loss per row."""
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
