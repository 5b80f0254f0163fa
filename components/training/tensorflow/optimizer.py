"""The optimizer: the user's, or the configured one. Mirrors `pytorch/optimizer.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import tensorflow as tf

from switchyard.components.errors import UserError
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.hyperparameters import Hyperparameters
from switchyard.components.training.names import Optimizer
from switchyard.components.training.schedule import factor


def optimizer_for(
    request: TrainRequest, model: keras.Model, *, clip: bool = True, replicas: int = 1
) -> keras.optimizers.Optimizer:
    """Returns the user's optimizer, or the configured one with its schedule.

    Args:
        request: the training.
        model: the user's model.
        clip: whether the configured optimizer clips gradients; False for `Replicas`, which clips the whole gradient, of which
            each has a part.
        replicas: number of devices.

    Raises:
        UserError: the user's clips gradients, of which each of several devices has a part.
    """
    own = request.hooks.optimizer(model, request.spec, keras.optimizers.Optimizer)
    if own is None:
        return _optimizer(request.hyperparameters, request.train.rows, clip=clip)
    for name in ("clipnorm", "global_clipnorm", "clipvalue"):
        if replicas > 1 and getattr(own, name, None) is not None:
            raise UserError(
                f"trainer.model: build_optimizer sets {name}, and each of {replicas} devices would clip its own part of the "
                "gradient; train on one device, or leave it out"
            )
    return own


def _optimizer(hyper: Hyperparameters, rows: int, *, clip: bool) -> keras.optimizers.Optimizer:
    rate: Any = hyper.learning_rate
    if hyper.schedule != "constant" or hyper.warmup_steps:
        rate = _Course(rate, hyper.schedule, hyper.total_steps(rows), hyper.warmup_steps)
    norm = hyper.clip_norm if clip else None
    optimizers: dict[Optimizer, tuple[type[keras.optimizers.Optimizer], dict[str, Any]]] = {
        "adam": (keras.optimizers.Adam, {"epsilon": 1e-7}),
        "adamw": (keras.optimizers.AdamW, {"epsilon": 1e-7, "weight_decay": hyper.weight_decay}),
        "sgd": (keras.optimizers.SGD, {"weight_decay": hyper.weight_decay or None}),
        "rmsprop": (keras.optimizers.RMSprop, {"epsilon": 1e-7, "rho": 0.9}),
    }
    kind, options = optimizers[hyper.optimizer]
    return (_dense(kind) if norm else kind)(rate, global_clipnorm=norm, **options)


def _dense(kind: type[keras.optimizers.Optimizer]) -> type[keras.optimizers.Optimizer]:
    """Returns an optimizer that takes embeddings' gradients as dense tensors.

    Keras 3.15 computes the norm of their `IndexedSlices` before rows of the same index are added up: a wrong norm.
    """

    class Dense(kind):
        def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
            return super().apply([None if g is None else tf.convert_to_tensor(g) for g in grads], trainable_variables)

    return Dense


class _Course(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate: float, schedule: str, total: int, warmup: int) -> None:
        super().__init__()
        self._rate, self._factor = rate, partial(factor, keras.ops, schedule, total=total, warmup=warmup)

    def __call__(self, step: Any) -> Any:
        return self._rate * self._factor(step=keras.ops.cast(step, "float32"))
