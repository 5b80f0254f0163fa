"""Starts a model from the weights of a version, and freezes weights. Mirrors `tensorflow/start.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from switchyard.components.errors import UserError
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.matching import Model, fill, frozen
from switchyard.components.training.pytorch.steps import BATCH_NORM
from switchyard.components.training.start import Start


def begin(model: nn.Module, request: TrainRequest, start: Start) -> None:
    """Writes the weights of a version into a model on the CPU, by the names of its state.

    Raises:
        UserError: the weights do not match the model, see `fill`.
    """
    state = model.state_dict()

    def write(values: Mapping[str, np.ndarray]) -> None:
        for name, value in values.items():
            state[name].copy_(torch.from_numpy(np.asarray(value)))

    def outputs(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(model({k: torch.from_numpy(v) for k, v in batch.items()}).float().numpy())

    model.eval()
    with torch.no_grad():
        own = {name: _array(tensor).copy() for name, tensor in state.items()}
        fill(Model(request.spec.features, own, write, outputs), _weights(start.weights), start)
    model.train()


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freezes the parameters whose names match a pattern; a batch normalization without any other keeps its statistics.

    Raises:
        UserError: a pattern matches none, or no parameter is left to train.
    """
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = frozen(patterns, weights)
    for name in found:
        weights[name].requires_grad_(False)
    for name, layer in model.named_modules():
        own = [f"{name}.{parameter}" if name else parameter for parameter, _ in layer.named_parameters(recurse=False)]
        if isinstance(layer, BATCH_NORM) and own and found.issuperset(own):
            layer.eval()


def _weights(file: Path) -> dict[str, np.ndarray]:
    """Returns the weights that `export` wrote by name; a weight with several names is stored once."""
    try:
        with safe_open(file, framework="pt") as stored:
            found = {name: _array(stored.get_tensor(name)) for name in stored.keys()}  # noqa: SIM118 (no mapping)
            others = {alias: name for alias, name in (stored.metadata() or {}).items() if name in found}
    except Exception as error:  # safetensors' own error is no subclass of a common one
        raise UserError(f"trainer.start_from: {file.name} cannot be read: {error}; start from another version") from error
    return found | {alias: found[name] for alias, name in others.items()}


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
