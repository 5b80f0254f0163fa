"""Checks a user's module before training. Mirrors `tensorflow/model_check.py`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from switchyard.components.errors import UserError
from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.model_check import check_outputs, first_rows, probe, refuse_own_training, refuse_replaced
from switchyard.components.training.pytorch.losses import row_losses

# Operations that do not change the range of values, by their names in autograd's graph.
_PASSED = (
    "View",
    "UnsafeView",
    "ReshapeAlias",
    "Squeeze",
    "Unsqueeze",
    "ToCopy",
    "Clone",
    "Alias",
    "Slice",
    "Select",
    "Transpose",
)
_OPERATIONS = {
    "Sigmoid": "sigmoid",
    "Hardsigmoid": "hard_sigmoid",
    "Softmax": "softmax",
    "Tanh": "tanh",
    "Relu": "relu",
    "Softplus": "softplus",
    "Exp": "exp",
    "Abs": "abs",
    "LogSigmoid": "log_sigmoid",
    "LogSoftmax": "log_softmax",
}
_DATA = ("train_dataloader", "val_dataloader")
_STEPS = ("training_step", "validation_step", "configure_optimizers", "configure_callbacks")


def trains_itself(model: nn.Module) -> bool:
    """Returns whether the model is a LightningModule with a training step of its own."""
    return _is_lightning(model) and "training_step" in _own_training(model)


def check_training(model: nn.Module, request: TrainRequest) -> None:
    """Raises UserError for a part of a training of the module's own that is not followed, or for settings that it replaces."""
    own = _own_training(model)
    if trains_itself(model):
        refuse_replaced(request, "a LightningModule with a training step")
        missing = [name for name in ("configure_optimizers", "validation_step") if name not in own]
        if missing:
            raise UserError(
                f"trainer.model: the LightningModule has a training_step and no {missing[0]}; define it"
                + ("" if missing[0] == "configure_optimizers" else ", and log val_loss in it")
            )
        refuse_own_training(
            [name for name in own if name in _DATA], "Remove it: the batches are those of the transformed examples."
        )
        return
    refuse_own_training(
        own,
        "Remove it: the optimizer comes from trainer.hyperparameters, the loss from task. Or write a LightningModule with "
        "training_step, validation_step and configure_optimizers, which is trained as it is.",
    )


def refuse_averages(callbacks: Sequence[Any]) -> None:
    """Raises UserError for a callback of Lightning's whose averages of weights replace the weights after the last epoch only."""
    from lightning.pytorch.callbacks import StochasticWeightAveraging  # Lightning takes seconds to import

    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        raise UserError(
            "trainer.callbacks: StochasticWeightAveraging replaces the weights after the last epoch, and the best epoch's are "
            "exported; use EMAWeightAveraging, whose averages are those of each epoch"
        )


def check_loss(model: nn.Module, request: TrainRequest) -> None:
    """Raises UserError for a loss of the user's own that fails on rows of the data, or returns no loss per row."""
    if trains_itself(model):
        return
    features, labels = first_rows(request.train)
    row_losses(request.spec.task, request.loss)(torch.from_numpy(labels), model(_tensors(features)).float())


def check_logits(model: nn.Module, request: TrainRequest) -> None:
    """Raises UserError for a module, on the CPU and in eval mode, whose outputs are not logits."""
    features, labels = first_rows(request.train)
    operation = _last_operation(model(_tensors(features)))

    @torch.no_grad()
    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        return np.asarray(model(_tensors(batch)).float().numpy())

    check_outputs(operation, probe(run, features), labels, request)


def _tensors(batch: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v.copy()) for k, v in batch.items()}


def _own_training(model: nn.Module) -> list[str]:
    """Returns the Lightning hooks that the module overrides."""
    if not _is_lightning(model):
        return sorted(name for name in _STEPS if hasattr(type(model), name))
    ours = _lightning().LightningModule
    return sorted(n for n in _hooks() if hasattr(type(model), n) and getattr(type(model), n) is not getattr(ours, n, None))


def _is_lightning(model: nn.Module) -> bool:
    # Its class is Lightning's only if the user's code has imported Lightning, which takes seconds.
    return "lightning.pytorch" in sys.modules and isinstance(model, _lightning().LightningModule)


def _lightning() -> Any:
    import lightning.pytorch as lightning

    return lightning


def _hooks() -> list[str]:
    """Returns the public methods of LightningModule that nn.Module does not have."""
    classes = [c for c in _lightning().LightningModule.__mro__ if c.__module__.startswith("lightning.")]
    public = {name for c in classes for name, value in vars(c).items() if callable(value) and not name.startswith("_")}
    return sorted(name for name in public if not hasattr(nn.Module, name))


def _last_operation(output: torch.Tensor) -> str:
    """Returns the operation that produced a tensor; empty if it is not in `_OPERATIONS`."""
    node = output.grad_fn
    while node is not None:
        name = node.name().partition("Backward")[0]
        if name not in _PASSED:
            return _OPERATIONS.get(name, "")
        node = node.next_functions[0][0]
    return ""
