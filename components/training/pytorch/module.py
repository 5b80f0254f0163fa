"""The Lightning module that trains the user's model where Lightning's trainer does."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as lightning
import torch
from torch import nn

from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.pytorch.optimizer import optimizer_for
from switchyard.components.training.pytorch.placement import spread
from switchyard.components.training.pytorch.steps import Steps


class Module(Steps, lightning.LightningModule):
    """A Lightning module: the steps of the user's model."""

    def __init__(self, model: nn.Module, request: TrainRequest) -> None:
        super().__init__(model, request)
        self._request = request
        self._spread = request.accelerator.shard_model and request.shard.count > 1
        # Lightning unscales fp16 gradients before clipping; a fused optimizer unscales them itself.
        unscales = request.accelerator.precision == "fp16" and bool(request.hyperparameters.clip_norm)
        # torch 2.10 has no fused SGD for sharded weights: "found no DeviceMesh from dtensor args".
        self._fused = not unscales and not (self._spread and request.hyperparameters.optimizer == "sgd")

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this name many times per step, and nn.Module checks on each assignment whether it is a parameter.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def configure_model(self) -> None:
        """Spreads the weights over the workers."""
        if self._spread and self.device_mesh is not None:
            spread(self.model, self.device_mesh)
            self._spread = False  # Lightning calls this more than once

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        """See `Steps.training_loss`."""
        return self.training_loss(batch, index)

    def validation_step(self, batch: Any, index: int) -> None:
        """See `Steps.validate`."""
        self.validate(batch, index)

    def configure_optimizers(self) -> Any:
        """See `optimizer_for`."""
        return optimizer_for(self._request, self.model, fused=self._fused and self._request.accelerator.kind != "tpu")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Adds gradients of 0 to unused sharded weights."""
        if self.device_mesh is not None:
            # A sharded checkpoint is loaded only if each weight has an optimizer state, including unused weights.
            for weight in self.parameters():
                if weight.grad is None and weight.requires_grad and weight not in optimizer.state:
                    weight.grad = torch.zeros_like(weight)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Returns a batch that is on the device as it is."""
        # Lightning would traverse a batch that is on the device without moving anything.
        there = batch[1].device.type == device.type
        return batch if there else super().transfer_batch_to_device(batch, device, dataloader_idx)
