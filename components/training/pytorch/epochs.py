"""The end of an epoch in Lightning: reports, checkpoints, stopping. Mirrors `tensorflow/epochs.py`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.profilers import PassThroughProfiler

from switchyard.components.errors import UserError
from switchyard.components.training.beside import Beside
from switchyard.components.training.contract import Report
from switchyard.components.training.example_source import Shard
from switchyard.components.training.ledger import TrainingLedger, check_finite
from switchyard.components.training.pytorch.checkpoints import CHECKPOINT, Copies, temporary
from switchyard.components.training.pytorch.loop import seed_epoch

_HPARAMS = {getattr(lightning.LightningModule, f"CHECKPOINT_HYPER_PARAMS_{key}") for key in ("KEY", "NAME", "TYPE")}
_NOTHING = nullcontext()


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
        seed_epoch(self._seed, trainer.current_epoch, self._shard.index)
        vars(pl_module).pop("lr_scheduler_step", None)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Computes the epoch's metrics. Collective call."""
        device = pl_module.device
        self._metrics = {**pl_module.train_metrics.result(device), **pl_module.val_metrics.result(device)}
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
    """Writes Lightning's checkpoints beside the next epoch. A TPU's checkpoint is written at once, by PyTorch/XLA."""

    def __init__(self, writer: Beside) -> None:
        self._copies = Copies(writer)
        self._temporary: Path | None = None
        self._state: Any = None

    def save(self, trainer: Any, ledger: TrainingLedger, *, first: bool) -> None:
        """Saves the epoch that was recorded last, then the ledger. Collective call; the first worker writes."""
        self._copies.wait()  # one copy of the state at a time
        self._temporary = temporary(ledger.last(CHECKPOINT))
        trainer.save_checkpoint(self._temporary)
        state, self._state = self._state, None
        if first:
            self._copies.write(state, ledger)

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Keeps a copy: the next epoch changes the weights in place. Files of the user's callbacks are written at once."""
        if Path(path) != self._temporary:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # `build_model` makes the module anew; what its `save_hyperparameters` keeps, such as the spec, needs pickle.
        self._state = self._copies.copy({key: value for key, value in checkpoint.items() if key not in _HPARAMS})


class Unprofiled(PassThroughProfiler):
    """No profiler. Lightning enters one for every hook, two dozen times per step, and its own starts a generator each time."""

    def profile(self, action_name: str) -> Any:
        """See the base class."""
        return _NOTHING
