"""Compiles models with torch.compile, with a fallback to eager mode."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from switchyard.components.errors import first_line
from switchyard.components.progress import warn
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.examples import placeholder_batch
from switchyard.components.training.positional import by_name, positional


def compiled(model: nn.Module, request: TrainRequest) -> Callable[[Any], torch.Tensor]:
    """Returns the compiled model, or, with a warning, the model itself if torch.compile fails or does not support it."""
    if request.accelerator.shard_model:
        warn("trainer.accelerator.compile: a model sharded over workers is trained without torch.compile")
        return model
    if request.accelerator.kind == "tpu":
        return model  # PyTorch/XLA always compiles every step
    # A copy runs forward and backward, as compilation starts with the first step of each.
    names = [f.name for f in request.spec.features]
    device = "cuda" if request.accelerator.kind == "gpu" else "cpu"
    trial = copy.deepcopy(model).to(device)
    batch = {k: torch.from_numpy(v).to(device) for k, v in placeholder_batch(request.spec, 2).items()}
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            _by_place(trial, names)(batch).sum().backward()
    except Exception as error:
        reason = first_line(error)
        warn(f"trainer.accelerator.compile: torch.compile failed for this model, falling back to eager mode: {reason}")
        return model
    return _by_place(model, names)


class _Positional(nn.Module):
    """A model with features by position, as the compiler writes the keys of its inputs into generated code."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self._names = model, tuple(names)

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        output: torch.Tensor = self.model(by_name(features, self._names))
        return output


def _by_place(model: nn.Module, names: Sequence[str]) -> Callable[[Any], torch.Tensor]:
    run = torch.compile(_Positional(model, names))
    return lambda features: run(positional(features, names))
