"""The optimizer: the user's, or the configured one. Mirrors `tensorflow/optimizer.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.hyperparameters import Hyperparameters
from switchyard.components.training.names import Optimizer
from switchyard.components.training.schedule import factor


def optimizer_for(request: TrainRequest, model: nn.Module, *, fused: bool) -> Any:
    """Returns the user's optimizer, or the configured one with its schedule, as Lightning's `configure_optimizers` does.

    Args:
        request: the training.
        model: the user's model.
        fused: whether one call of the configured optimizer updates all parameters.
    """
    if own := request.hooks.optimizer(model, request.spec, (torch.optim.Optimizer, dict)):
        return own
    hyper, total = request.hyperparameters, request.hyperparameters.total_steps(request.train.rows)
    optimizer = _optimizer(hyper, model.parameters(), fused=fused)
    if hyper.schedule == "constant" and not hyper.warmup_steps:
        return optimizer
    course = LambdaLR(optimizer, lambda step: float(factor(np, hyper.schedule, step, total, hyper.warmup_steps)))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": course, "interval": "step"}}


def _optimizer(hyper: Hyperparameters, parameters: Any, *, fused: bool) -> torch.optim.Optimizer:
    rate, decay = hyper.learning_rate, hyper.weight_decay
    optimizers: dict[Optimizer, Callable[[], torch.optim.Optimizer]] = {
        "adam": lambda: torch.optim.Adam(parameters, rate, eps=1e-7, fused=fused),
        "adamw": lambda: torch.optim.AdamW(parameters, rate, weight_decay=decay, eps=1e-7, fused=fused),
        # Without momentum PyTorch's SGD weight decay, which is added to the gradient, equals decoupled decay.
        "sgd": lambda: torch.optim.SGD(parameters, rate, weight_decay=decay, fused=fused),
        "rmsprop": lambda: torch.optim.RMSprop(parameters, rate, alpha=0.9, eps=1e-7),
    }
    return optimizers[hyper.optimizer]()
