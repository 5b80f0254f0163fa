"""What a training step computes: the task's loss and metrics of the user's model, with the weights of rows and classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from switchyard.components.training.contract import TrainRequest
from switchyard.components.training.pytorch.compile import compiled
from switchyard.components.training.pytorch.losses import row_losses
from switchyard.components.training.pytorch.metrics import Metrics

DEVICES = {"cpu": "cpu", "gpu": "cuda", "tpu": "xla"}
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Steps(nn.Module):
    """The user's model with the task's loss and metrics. Its state is the model's, with `model.` in front of the names."""

    _run: Callable[[Any], torch.Tensor]
    class_weights: torch.Tensor | None

    def __init__(self, model: nn.Module, request: TrainRequest) -> None:
        super().__init__()
        self.model = model
        # Not registered as a submodule: its weights are the model's.
        self.__dict__["_run"] = compiled(model, request) if request.accelerator.compile else model
        # A context of its own: losses and metrics stay in float32, and PyTorch/XLA knows no other.
        device, bf16 = DEVICES[request.accelerator.kind], request.accelerator.precision == "bf16"
        self._precision = partial(torch.autocast, device, dtype=torch.bfloat16) if bf16 else nullcontext
        self._hyper, self._shard = request.hyperparameters, request.shard
        self._losses = row_losses(request.spec.task, request.loss, self._hyper.label_smoothing)
        self._train_rows, self._eval_rows = request.train.rows, request.eval.rows
        weights = request.hyperparameters.class_weights
        self.register_buffer("class_weights", torch.tensor(weights) if weights else None, persistent=False)
        self.train_metrics = Metrics(request, prefix="")
        self.val_metrics = Metrics(request, prefix="val_")

    def training_loss(self, batch: Any, index: int) -> torch.Tensor:
        """Adds a batch to the metrics; returns this worker's share of the loss of a step, whose gradients are averaged."""
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

    def validate(self, batch: Any, index: int) -> None:
        """Adds a batch of the eval split to the metrics."""
        losses, output, labels, weights = self._step(batch, by_class=False)
        if self._rows(index, self._hyper.eval_batch_size(self._shard.count), self._eval_rows):
            self.val_metrics.add(losses, output, labels, weights)

    def _rows(self, index: int, batch_size: int, rows: int) -> int:
        """Returns the number of this worker's rows of a split's batch."""
        return self._shard.rows(min(batch_size, rows - index * batch_size))

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
