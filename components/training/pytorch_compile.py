"""torch.compile, where it can."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from components.errors import first_line
from components.progress import warn
from components.training.contract import TrainRequest
from components.training.input import placeholder_batch


def compiled(model: nn.Module, request: TrainRequest) -> Callable[[Any], torch.Tensor]:
    """Returns the model compiled, or, with a warning, as it is where PyTorch's compiler fails on it or is not there."""
    if request.accelerator.shard_model:
        warn("trainer.accelerator.compile: a model that is spread over workers is trained without torch.compile")
        return model
    if request.accelerator.kind == "tpu":
        return model  # PyTorch/XLA compiles every step as it is
    # It is found out on a copy, forward and backward: compilation begins with the first step of each.
    device = "cuda" if request.accelerator.kind == "gpu" else "cpu"
    trial = copy.deepcopy(model).to(device)
    batch = {k: torch.from_numpy(v).to(device) for k, v in placeholder_batch(request.spec, 2).items()}
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            torch.compile(trial)(batch).sum().backward()
    except Exception as error:
        reason = first_line(error)
        warn(f"trainer.accelerator.compile: torch.compile cannot do this model, it is trained as it is: {reason}")
        return model
    return torch.compile(model)
