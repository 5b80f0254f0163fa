"""The Lightning module that trains the user's model: the task's loss and metrics, sample weights, the optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import nn

from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.pytorch.compile import compiled
from switchyard.components.training.pytorch.losses import row_losses
from switchyard.components.training.pytorch.metrics import Metrics
from switchyard.components.training.pytorch.optimizer import optimizer_for
from switchyard.components.training.pytorch.placement import spread

_DEVICES = {"cpu": "cpu", "gpu": "cuda", "tpu": "xla"}
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Module(lightning.LightningModule):
    """A Lightning module: the user's model with the task's loss and metrics."""

    def __init__(self, model: nn.Module, request: TrainRequest) -> None:
        super().__init__()
        self.model = model
        # Not registered as a submodule: its weights are the model's.
        self.__dict__["_run"] = compiled(model, request) if request.accelerator.compile else model
        # Lightning's own covers losses and metrics too, which slows small steps down, and does not support XLA.
        device, bf16 = _DEVICES[request.accelerator.kind], request.accelerator.precision == "bf16"
        self._precision = partial(torch.autocast, device, dtype=torch.bfloat16) if bf16 else nullcontext
        self._request, self._hyper = request, request.hyperparameters
        self._losses = row_losses(request.spec.task, request.loss, self._hyper.label_smoothing)
        self._shard, self._train_rows = request.shard, request.train.rows
        self._eval_rows = request.eval.rows
        self._spread = request.accelerator.shard_model and request.shard.count > 1
        # Lightning unscales fp16 gradients before clipping; a fused optimizer unscales them itself.
        unscales = request.accelerator.precision == "fp16" and bool(request.hyperparameters.clip_norm)
        # torch 2.10 has no fused SGD for sharded weights: "found no DeviceMesh from dtensor args".
        self._fused = not unscales and not (self._spread and request.hyperparameters.optimizer == "sgd")
        weights = request.hyperparameters.class_weights
        self.register_buffer("class_weights", torch.tensor(weights) if weights else None, persistent=False)
        self.train_metrics = Metrics(request, prefix="")
        self.val_metrics = Metrics(request, prefix="val_")

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
        """Returns this worker's share of the loss of a step, whose gradients Lightning averages."""
        losses, output, labels, weights = self._step(batch, by_class=True)
        own = self._rows(index, self._hyper.batch_size, self._train_rows)
        if own:
            self.train_metrics.add(losses.detach(), output.detach(), labels, weights)
        batches, together = self._hyper.accumulate_steps, self._hyper.rows_per_step
        if self._shard.count == batches == 1:
            return losses.mean()
        # The gradients of workers and batches are averaged: each row must count equally, even if the last step has fewer rows.
        of_step = min(together, self._train_rows - index // batches * together)
        return losses.sum() * (self._shard.count * batches / of_step if own else 0.0)

    def validation_step(self, batch: Any, index: int) -> None:
        """Adds a batch to the metrics."""
        losses, output, labels, weights = self._step(batch, by_class=False)
        if self._rows(index, self._hyper.eval_batch_size(self._shard.count), self._eval_rows):
            self.val_metrics.add(losses, output, labels, weights)

    def _rows(self, index: int, batch_size: int, rows: int) -> int:
        """Returns the number of this worker's rows of a split's batch."""
        return self._shard.rows(min(batch_size, rows - index * batch_size))

    def configure_optimizers(self) -> Any:
        """See `optimizer_for`."""
        return optimizer_for(self._request, self.model, fused=self._fused and self.device.type in ("cpu", "cuda"))

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

    def _step(self, batch: Any, *, by_class: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Returns weighted losses (B,), output (B, outputs), labels (B,) and, of weighted examples, the rows' weights (B,)."""
        features, labels, *rest = batch
        weights = rest[0] if rest else None
        one_row = self.training and len(labels) == 1
        with self._precision(), batch_norm_at_rest(self.model) if one_row else nullcontext():
            output = self._run(features).float()
        losses = self._losses(labels, output)
        # As in Keras: the weighted losses are divided by the number of examples, not by the sum of the weights.
        if by_class and self.class_weights is not None:
            of_class = self.class_weights[labels]
            weights = None if weights is None else weights * of_class
            losses = losses * (of_class if weights is None else weights)
        elif weights is not None:
            losses = losses * weights
        return losses, output, labels, weights


@contextmanager
def batch_norm_at_rest(model: nn.Module) -> Iterator[None]:
    """Switches batch normalization to its running statistics: PyTorch raises for a batch of one row, which has no variance."""
    layers = [m for m in model.modules() if isinstance(m, BATCH_NORM) and m.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
