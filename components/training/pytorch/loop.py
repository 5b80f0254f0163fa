"""Trains on one CPU or GPU, without Lightning, whose hooks of a step take as long as a step of a small model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from switchyard.components.training.beside import Beside
from switchyard.components.training.contract import Report, TrainRequest
from switchyard.components.training.ledger import TrainingLedger, check_finite
from switchyard.components.training.pytorch.batches import EvalBatches, TrainBatches
from switchyard.components.training.pytorch.checkpoints import CHECKPOINT, Copies
from switchyard.components.training.pytorch.optimizer import optimizer_for
from switchyard.components.training.pytorch.steps import DEVICES, Steps


def suits(request: TrainRequest, *, whole: bool) -> bool:
    """Returns whether this loop trains; Lightning trains several workers, on TPUs, in fp16, and with parts of the user's own.

    Args:
        request: the training.
        whole: whether the model has a training of its own.
    """
    accelerator, hooks = request.accelerator, request.hooks
    own = whole or hooks.build_optimizer or hooks.build_callbacks
    return not own and request.shard.count == 1 and accelerator.kind != "tpu" and accelerator.precision != "fp16"


def train(model: nn.Module, request: TrainRequest, ledger: TrainingLedger, report: Report, writer: Beside) -> None:
    """Trains from the ledger's last epoch on; `writer` writes the checkpoints."""
    _Loop(model, request, ledger).run(report, Copies(writer))


class _Loop:
    def __init__(self, model: nn.Module, request: TrainRequest, ledger: TrainingLedger) -> None:
        self._hyper, self._kind, self._ledger = request.hyperparameters, request.accelerator.kind, ledger
        self._device = torch.device(DEVICES[self._kind])
        self._steps = Steps(model, request).to(self._device)
        made = optimizer_for(request, model, fused=True)
        self._optimizer, course = (made["optimizer"], made["lr_scheduler"]) if isinstance(made, dict) else (made, None)
        self._scheduler = course and course["scheduler"]
        self._train, self._eval = TrainBatches(request, ledger), EvalBatches(request)

    def run(self, report: Report, copies: Copies) -> None:
        ledger = self._ledger
        if ledger.epochs:
            self._load(ledger.last(CHECKPOINT))
        while not ledger.finished:
            seed_epoch(self._hyper.seed, ledger.epochs, 0, everywhere=self._kind != "cpu")
            steps = self._epoch()
            metrics = self._measured()
            check_finite("loss", metrics["loss"], ledger.epochs + 1)
            ledger.record(ledger.steps + steps, metrics)
            report(ledger.steps, ledger.history[-1])
            copies.wait()  # one copy of the state at a time
            copies.write(copies.copy(self._state()), ledger)
        self._optimizer.zero_grad()
        self._steps.cpu()
        if self._kind == "gpu":
            torch.cuda.empty_cache()

    def _epoch(self) -> int:
        """Trains one epoch; returns the number of its steps."""
        together, steps, batches = self._hyper.accumulate_steps, 0, 0
        for number, batch in enumerate(self._train):
            loss = self._steps.training_loss(batch, number)
            if not batches:
                self._optimizer.zero_grad()
            (loss if together == 1 else loss / together).backward()
            batches += 1
            if batches == together:
                self._update()
                steps, batches = steps + 1, 0
        if batches:  # the last step of an epoch may have fewer
            self._update()
            steps += 1
        return steps

    def _update(self) -> None:
        if self._hyper.clip_norm:
            weights = [weight for group in self._optimizer.param_groups for weight in group["params"]]
            nn.utils.clip_grad_norm_(weights, self._hyper.clip_norm)
        self._optimizer.step()
        if self._scheduler:
            self._scheduler.step()

    def _measured(self) -> dict[str, float]:
        """Returns the metrics of the epoch."""
        self._optimizer.zero_grad()  # their memory is free for the eval split
        with _at_rest(self._steps), torch.inference_mode():
            for number, batch in enumerate(self._eval):
                self._steps.validate(batch, number)
            return {**self._steps.train_metrics.result(self._device), **self._steps.val_metrics.result(self._device)}

    def _state(self) -> dict[str, Any]:
        """Returns what a checkpoint holds, by Lightning's names."""
        schedulers = [self._scheduler.state_dict()] if self._scheduler else []
        own, optimizer = self._steps.state_dict(), self._optimizer.state_dict()
        return {"state_dict": own, "optimizer_states": [optimizer], "lr_schedulers": schedulers}

    def _load(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self._steps.load_state_dict(state["state_dict"])
        self._optimizer.load_state_dict(state["optimizer_states"][0])
        if self._scheduler:
            self._scheduler.load_state_dict(state["lr_schedulers"][0])


def seed_epoch(seed: int, epoch: int, worker: int, *, everywhere: bool = True) -> None:
    """Seeds dropout by the epoch, so that a resumed training draws what an uninterrupted one does; workers differ.

    Args:
        seed: the training's.
        epoch: the number of completed epochs.
        worker: index of the worker.
        everywhere: whether to seed all devices; PyTorch records a stack trace for each that is not in use.
    """
    drawn = int(np.random.SeedSequence((seed, epoch, worker)).generate_state(1, np.uint64)[0])
    if everywhere:
        torch.manual_seed(drawn)
    else:
        torch.default_generator.manual_seed(drawn)


@contextmanager
def _at_rest(module: nn.Module) -> Iterator[None]:
    """Switches dropout and the like off; restores each part, as a frozen batch normalization stays at rest."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
