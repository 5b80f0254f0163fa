"""Starts a model from the weights of a version, and freezes weights. Mirrors `pytorch/start.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.matching import Model, fill, frozen
from switchyard.components.training.start import WEIGHTS, Start, read_weights, write_weights

_NUMBERED = re.compile(r"(.+?)(?:_\d+)?")


def begin(model: keras.Model, request: TrainRequest, start: Start) -> None:
    """Writes the weights of a version into a built model, by their names.

    Raises:
        UserError: the weights do not match the model, see `fill`.
    """
    variables = weights_by_name(model)

    def write(values: Mapping[str, np.ndarray]) -> None:
        for name, value in values.items():
            variables[name].assign(value)

    def outputs(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(keras.ops.cast(model(batch, training=False), "float32"))

    fill(Model(request.spec.features, _arrays(variables), write, outputs), read_weights(start.weights), start)


def freeze(model: keras.Model, patterns: Sequence[str]) -> None:
    """Freezes the variables whose names match a pattern; a batch normalization without any other keeps its statistics.

    Raises:
        UserError: a pattern matches none, or no variable is left to train.
    """
    trainable = {id(v) for v in model.trainable_variables}
    weights = {name: v for name, v in weights_by_name(model).items() if id(v) in trainable}
    found = {id(weights[name]) for name in frozen(patterns, weights)}
    for layer in _layers(model):
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable_variables:
            layer.trainable = not found.issuperset(id(v) for v in layer.trainable_variables)
    for variable in weights.values():
        variable.trainable = id(variable) not in found


def save_weights(model: keras.Model, export_dir: Path) -> None:
    """Writes the weights beside the exported model, for later trainings: a SavedModel does not keep their names."""
    write_weights(export_dir / WEIGHTS, _arrays(weights_by_name(model)))


def weights_by_name(model: keras.Model) -> dict[str, Any]:
    """Returns the weights of a built model by their paths, such as `encoder/dense/kernel`.

    Keras numbers layers without a name of their own through all models of a process; here each number counts the layers of its
    kind in the model, or in the layer that holds them.
    """
    kinds = {_snake(type(layer).__name__) for layer in _layers(model)}
    names: dict[str, str] = {"": ""}
    taken: dict[str, int] = {}
    found: dict[str, Any] = {}
    for variable in model.weights:
        *layers, last = variable.path.split("/")
        path = ""
        for layer in layers:
            outer, path = path, f"{path}/{layer}"
            if path not in names:
                kind = _NUMBERED.fullmatch(layer)
                base = kind[1] if kind and kind[1] in kinds else layer
                names[path] = _unused(f"{names[outer]}/{base}", taken)
        name = f"{names[path]}/{last}".removeprefix("/")
        found[_unused(name, taken)] = variable
    return found


def _unused(name: str, taken: dict[str, int]) -> str:
    count = taken.get(name, 0)
    taken[name] = count + 1
    return f"{name}_{count}" if count else name


def _arrays(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    found = {name: np.asarray(variable.numpy()) for name, variable in variables.items()}
    # Not a number type of NumPy's: bfloat16 and the like.
    return {name: value.astype(np.float32) if value.dtype.kind == "V" else value for name, value in found.items()}


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields a model and the layers in it, however deep."""
    seen, todo = set(), [model]
    while todo:
        found = todo.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, keras.layers.Layer):
            yield found
            todo += vars(found).values()
        elif isinstance(found, list | tuple | set):
            todo += found
        elif isinstance(found, Mapping):
            todo += found.values()


def _snake(name: str) -> str:
    """Returns the name that Keras gives to a layer of a class."""
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))).lower()
