"""Rejects invalid user models before training, with the same messages for both frameworks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import numpy as np

from switchyard.components.errors import UserError
from switchyard.components.tasks import TASKS
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.example_source import ExampleSource
from switchyard.components.training.losses import OF_MODEL
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.names import LOSSES
from switchyard.components.user_code.loading import blamed, folder_of

# Final operation -> range of its values.
_RANGES = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "softplus": (0.0, math.inf),
    "exp": (0.0, math.inf),
    "abs": (0.0, math.inf),
    "square": (0.0, math.inf),
    "log_sigmoid": (-math.inf, 0.0),
    "log_softmax": (-math.inf, 0.0),
}
# Activation -> operations whose values are no logits: logits of one sign always predict one class, and a softmax of values
# between 0 and 1 is never confident.
_NO_LOGITS = {
    "sigmoid": frozenset(_RANGES) - {"tanh"},
    "softmax": frozenset({"sigmoid", "hard_sigmoid", "softmax"}),
}
_ROWS = 256
# Factors that scale the inputs, to detect outputs that stay between 0 and 1.
_SCALES = (1e3, -1e3)


# Hyperparameters in whose place a model's own training is -> their defaults.
_REPLACED: dict[str, Any] = {
    "optimizer": "adam",
    "learning_rate": 0.001,
    "schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "clip_norm": None,
    "label_smoothing": 0.0,
    "accumulate_steps": 1,
    "class_weights": None,
}


def refuse_own_training(what: Sequence[str], why: str) -> None:
    """Raises UserError for parts of a training of a model's own that the trainer would ignore.

    Args:
        what: names of the parts; empty if there are none.
        why: what to do to have them followed.
    """
    if what:
        raise UserError(
            f"trainer.model: build_model returned a model with its own {', '.join(what)}, which the trainer would ignore. {why}"
        )


def refuse_replaced(request: TrainRequest, what: str) -> None:
    """Raises UserError for a setting in whose place a model's own training is.

    Args:
        request: the training's request.
        what: the model, such as `a compiled model`.
    """
    hyper, accelerator, spec = request.hyperparameters, request.accelerator, request.spec
    values = {name: getattr(hyper, name) for name in _REPLACED}
    given = {f"hyperparameters.{name}": value for name, value in values.items() if value != _REPLACED[name]}
    loss = request.loss
    if loss.function or loss.name not in (*LOSSES[spec.task][:1], OF_MODEL):
        given = {"loss": loss.name, **given}
    given |= {f"accelerator.{name}": True for name in ("compile", "shard_model") if getattr(accelerator, name)}
    given |= {"accelerator": f"{accelerator.workers} workers"} if accelerator.workers > 1 else {}
    given |= {"accelerator.kind": "tpu"} if accelerator.kind == "tpu" else {}
    for key, value in given.items():
        raise UserError(
            f"trainer.{key}: received {value!r}, and build_model returned {what}, whose own training does not follow it; remove "
            f"one of them"
        )
    for hook in ("build_optimizer", "build_metrics"):
        if getattr(request.hooks, hook):
            raise UserError(f"trainer.model: {hook} is not used, as build_model returned {what}; remove one of them")


@contextmanager
def explained(build_model: Callable[..., Any] | None) -> Iterator[None]:
    """Converts errors that a model raises on rows of the data to UserError with the line in the user's code."""
    with blamed("trainer.model: the model fails on the first rows of the training data: ", folder_of(build_model)):
        yield


def first_rows(source: ExampleSource) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns the features and labels of up to 256 rows of a split, in file order."""
    [(features, labels, *_)] = islice(source.batches(_ROWS), 1)
    return features, labels


def probe(model: Callable[[dict[str, np.ndarray]], np.ndarray], features: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Returns a model's outputs, each float32 (B, outputs), for the original features and for scaled float features."""
    outputs = [model(dict(features))]
    for factor in _SCALES:
        # Integers may be indices and are not scaled.
        larger = {k: (v * factor).astype(v.dtype) if v.dtype.kind == "f" else v for k, v in features.items()}
        with suppress(Exception):  # floats may be used as indices, too
            outputs.append(model(larger))
    return outputs


def check_outputs(operation: str, outputs: Sequence[np.ndarray], labels: np.ndarray, request: TrainRequest) -> None:
    """Rejects a model whose outputs are not logits, or cannot match the labels of a regression.

    Args:
        operation: the model's last operation, a key of `_RANGES`; any other value if it is unknown.
        outputs: outputs of the model, untrained or trained, see `probe`.
        labels: labels of those rows, shape (B,).
        request: the training's request.

    Raises:
        UserError: the outputs are invalid.
    """
    spec, activation = request.spec, TASKS[request.spec.task].activation
    if TASKS[spec.task].own_shape:
        return  # only the user's loss knows what the outputs mean
    if request.loss.of_log:
        if _RANGES.get(operation, (-math.inf, 0))[0] >= 0:
            raise UserError(
                f"trainer.model: the model ends in {operation}; with the loss {request.loss.name} it returns the logarithm of "
                "the value, which may be any number: the trainer applies exp itself. Remove the last activation."
            )
        return
    if activation == "identity":
        low, high = _RANGES.get(operation, (-math.inf, math.inf))
        outside = labels[(labels < low) | (labels > high)] if not TASKS[spec.task].groups else labels[:0]
        if operation == "softmax" or outside.size:
            seen = f"; {outside.size} of {labels.size} labels lie outside, such as {outside[0]:g}" if outside.size else ""
            raise UserError(
                f"trainer.model: the model ends in {operation}, which gives {low:g} to {high:g}{seen}. "
                "Remove the last activation."
            )
        return
    if operation not in _NO_LOGITS[activation]:
        operation = _look_like(np.stack(outputs), spec)
    if operation:
        raise UserError(
            f"trainer.model: the model ends in {operation}; a {spec.task} task needs logits, which may be any number: the "
            f"trainer applies the {activation} itself, in the loss and in the served model. Remove the last activation."
        )


def _look_like(outputs: np.ndarray, spec: ModelSpec) -> str:
    """Returns the kind of probabilities in the outputs, shape (scales, B, outputs); empty if they may be logits."""
    found = outputs[np.isfinite(outputs).all(axis=2)]
    if len(found) < 8 or found.min() < 0 or found.max() > 1:
        return ""
    if TASKS[spec.task].activation == "softmax":
        return "probabilities (all rows add up to 1)" if np.allclose(found.sum(axis=1), 1, atol=1e-3) else ""
    # Logits may all be between 0 and 1 by chance, but scaling the inputs or training does not saturate them at both ends.
    low, high = (found < 0.05).mean(), (found > 0.95).mean()
    pressed = low > 0 and high > 0 and low + high > 0.3
    return "probabilities (0 to 1 for all inputs)" if pressed else ""
