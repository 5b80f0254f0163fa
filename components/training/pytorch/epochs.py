"""The end of an epoch in Lightning: reports, checkpoints, stopping. Mirrors `tensorflow/epochs.py`."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.profilers import PassThroughProfiler
from lightning_utilities.core.apply_func import apply_to_collection
from torch import nn

from switchyard.components.errors import UserError
from switchyard.components.training.beside import Beside
from switchyard.components.training.contract import Report
from switchyard.components.training.example_source import Shard
from switchyard.components.training.ledger import TrainingLedger, check_finite

CHECKPOINT = ".ckpt"
_HPARAMS = {getattr(lightning.LightningModule, f"CHECKPOINT_HYPER_PARAMS_{key}") for key in ("KEY", "NAME", "TYPE")}
_NOTHING = nullcontext()
# Most pinned memory of a checkpoint: it cannot be swapped out, and PyTorch rounds each tensor's up to a power of two.
_PINNED_BYTES = 4 << 30


class Epochs(Checkpoint):
    """A callback at the end of each epoch: reports metrics, writes the checkpoint, stops when the ledger is finished.

    Lightning calls a `Checkpoint` after all other callbacks, also after its own `EarlyStopping`.
    """

    def __init__(
        self, ledger: TrainingLedger, report: Report, shard: Shard, checkpoints: Checkpoints, *, seed: int, logged: bool
    ) -> None:
        self._ledger, self._report, self._shard, self._logged = ledger, report, shard, logged
        self._checkpoints, self._seed = checkpoints, seed
        self._metrics: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Seeds dropout, and restores the module's step of its schedulers, see `on_train_epoch_end`."""
        # By the epoch, so that a resumed training draws what an uninterrupted one does; workers must differ.
        drawn = np.random.SeedSequence((self._seed, trainer.current_epoch, self._shard.index)).generate_state(1, np.uint64)
        torch.manual_seed(int(drawn[0]))
        vars(pl_module).pop("lr_scheduler_step", None)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Computes the epoch's metrics. Collective call."""
        self._metrics = {**pl_module.train_metrics.result(), **pl_module.val_metrics.result()}
        if self._logged:  # for the user's code; the values are those of all workers
            pl_module.log_dict(self._metrics, sync_dist=False)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Records and reports the epoch."""
        metrics = self._metrics
        check_finite("loss", metrics["loss"], trainer.current_epoch + 1)
        steps = self._steps(trainer)
        self._ledger.record(steps, metrics)
        self._report(steps, self._ledger.history[-1])

    def _steps(self, trainer: Any) -> int:
        """Returns the number of steps at the end of an epoch."""
        return int(trainer.global_step)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Writes the checkpoint, after validation and after the user's callbacks, when Lightning's loop state is complete."""
        self._ledger.stopped |= bool(trainer.should_stop)  # a callback may set a tensor
        # Lightning steps a ReduceLROnPlateau after this hook, where the checkpoint would lack it.
        trainer.fit_loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        pl_module.lr_scheduler_step = _nothing
        self._checkpoints.save(trainer, self._ledger, first=self._shard.first)
        trainer.should_stop = self._ledger.finished


class OwnEpochs(Epochs):
    """The end of an epoch of a LightningModule with a training of its own, whose metrics are those that it logs."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Resets the mean of the losses."""
        super().on_train_epoch_start(trainer, pl_module)
        self._sum: Any = 0.0
        self._rows = self._batches = 0

    def _steps(self, trainer: Any) -> int:
        # Lightning counts the steps of each optimizer of the module. A step of the training is a batch.
        return self._ledger.steps + self._batches

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Adds the loss that `training_step` returned."""
        self._batches += 1
        if isinstance(outputs, dict) and "loss" in outputs:
            rows = len(batch[1])
            # In float32: a sum in fp16 or bf16 overflows, or ignores what is added.
            self._sum, self._rows = self._sum + outputs["loss"].detach().float() * rows, self._rows + rows

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """The module logs its metrics itself."""

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Its metrics of the train split are known at the end of the epoch only."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Records what the module logged, then see the base class."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if "val_loss" not in logged:
            raise UserError(
                "trainer.model: the LightningModule logs no val_loss, by which the best epoch is chosen; add "
                "self.log('val_loss', loss) to validation_step"
            )
        self._metrics = {**({"loss": float(self._sum) / self._rows} if self._rows else {}), **logged}
        if "loss" not in self._metrics:
            raise UserError("trainer.model: training_step returns no loss; return it, or log it: self.log('loss', loss)")
        super().on_validation_end(trainer, pl_module)
        super().on_train_epoch_end(trainer, pl_module)


def _nothing(*arguments: Any) -> None:
    """Stands in for the step of a scheduler that has stepped."""


class Checkpoints(TorchCheckpointIO):
    """Copies a checkpoint's state and writes it beside the next epoch. A TPU's checkpoint is written at once, by PyTorch/XLA."""

    def __init__(self, writer: Beside) -> None:
        self._writer = writer
        self._temporary: Path | None = None
        self._state: Any = None
        self._pinned: list[torch.Tensor] = []
        self._pinned_bytes = 0
        self._loadable = False

    def save(self, trainer: Any, ledger: TrainingLedger, *, first: bool) -> None:
        """Saves the epoch that was recorded last, then the ledger. Collective call; the first worker writes."""
        self._writer.wait()  # one copy of the state at a time
        path = ledger.last(CHECKPOINT)
        self._temporary = path.with_name(f"new_{path.name}")
        trainer.save_checkpoint(self._temporary)
        state, self._state = self._state, None
        if first:
            copied = torch.cuda.current_stream().record_event() if self._pinned else None
            self._writer.submit(partial(self._write, state, copied, self._temporary, path, ledger.copy()))

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Keeps a copy: the next epoch changes the weights in place. Files of the user's callbacks are written at once."""
        if Path(path) != self._temporary:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # `build_model` makes the module anew; what its `save_hyperparameters` keeps, such as the spec, needs pickle.
        state = {key: value for key, value in checkpoint.items() if key not in _HPARAMS}
        free = iter(self._pinned)
        self._pinned, self._pinned_bytes = [], 0
        self._state = apply_to_collection(state, torch.Tensor, lambda tensor: self._copy(tensor.detach(), free))

    def _copy(self, tensor: torch.Tensor, free: Iterator[torch.Tensor]) -> torch.Tensor:
        """Copies a tensor; from a GPU to pinned memory, the next `free` if it fits, in the order of its work, without waiting."""
        if not tensor.is_cuda or self._pinned_bytes + tensor.nbytes > _PINNED_BYTES:
            return tensor.to("cpu", copy=True)
        pinned = next(free, None)
        if pinned is None or (pinned.shape, pinned.dtype) != (tensor.shape, tensor.dtype):
            pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._pinned.append(pinned)
        self._pinned_bytes += tensor.nbytes
        return pinned.copy_(tensor, non_blocking=True)

    def _write(self, state: Any, copied: torch.cuda.Event | None, temporary: Path, path: Path, ledger: TrainingLedger) -> None:
        if copied:
            copied.synchronize()
        if state is not None:
            # Lightning writes to memory first, which keeps the next epoch waiting for Python's lock.
            with temporary.open("wb") as file:
                torch.save(state, file)
            if not self._loadable:  # now, not when a killed training resumes
                _check_loadable(temporary)
                self._loadable = True
        os.replace(temporary, path)
        ledger.save()


def _check_loadable(checkpoint: Path) -> None:
    """Raises UserError for state that PyTorch's safe loader refuses."""
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        kind = re.search(r"GLOBAL (\S+)", str(error))
        raise UserError(
            f"trainer.model: the state of its optimizer, callbacks or module holds {kind[1] if kind else 'an object'}, which a "
            "resumed training would refuse to load; keep tensors, numbers, texts, lists and dicts in it"
        ) from error


def load(model: nn.Module, checkpoint: Path, prefix: str) -> None:
    """Loads the weights whose names begin with `prefix`."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


class Unprofiled(PassThroughProfiler):
    """No profiler. Lightning enters one for every hook, two dozen times per step, and its own starts a generator each time."""

    def profile(self, action_name: str) -> Any:
        """See the base class."""
        return _NOTHING
