"""Trains by Lightning: several workers, TPUs, fp16, a callback or an optimizer of the user's, a training of the module's own."""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback
from torch import nn

from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.beside import Beside
from switchyard.components.training.contract import Report, TrainRequest
from switchyard.components.training.ledger import TrainingLedger
from switchyard.components.training.pytorch.batches import EvalBatches, TrainBatches
from switchyard.components.training.pytorch.checkpoints import CHECKPOINT
from switchyard.components.training.pytorch.epochs import Checkpoints, Epochs, OwnEpochs, Unprofiled
from switchyard.components.training.pytorch.hints import without_hints
from switchyard.components.training.pytorch.model_check import refuse_averages
from switchyard.components.training.pytorch.module import Module
from switchyard.components.training.pytorch.placement import placement


def train(
    model: nn.Module, request: TrainRequest, ledger: TrainingLedger, report: Report, writer: Beside, *, whole: bool
) -> dict[str, Any]:
    """Trains from the ledger's last epoch on, by Lightning's `fit`.

    Args:
        model: the user's model.
        request: the training.
        ledger: its ledger.
        report: see `Trainer.train`.
        writer: writes the checkpoints.
        whole: whether the model is a LightningModule with a training of its own.

    Returns:
        What such a module trained with, by the names of hyperparameters.
    """
    without_hints()
    module = cast(lightning.LightningModule, model) if whole else Module(model, request)
    hyper = request.hyperparameters
    callbacks = request.hooks.callbacks(request.spec, Callback)
    refuse_averages(callbacks)
    # A scheduler of the user's optimizer may read the metrics, too.
    logged = bool(callbacks or request.hooks.build_optimizer)
    checkpoints = Checkpoints(writer)
    kind = OwnEpochs if whole else Epochs
    epochs = kind(ledger, report, request.shard, checkpoints, seed=hyper.seed, logged=logged)
    trainer = _Trainer(
        **placement(request),
        total=hyper.total_steps(request.train.rows),
        precision=_precision(request.accelerator, whole=whole),
        max_epochs=hyper.epochs,
        plugins=[checkpoints] if request.accelerator.kind != "tpu" else None,
        callbacks=[*callbacks, epochs],
        logger=False,
        enable_progress_bar=False,
        gradient_clip_val=hyper.clip_norm,
        accumulate_grad_batches=hyper.accumulate_steps,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        profiler=Unprofiled(),
        use_distributed_sampler=False,
        default_root_dir=request.checkpoint_dir,
    )
    trainer.fit(
        module,
        TrainBatches(request, ledger),
        EvalBatches(request),
        ckpt_path=ledger.last(CHECKPOINT) if ledger.epochs else None,
        weights_only=True,
    )
    return _own_training(module, trainer) if whole else {}


class _Trainer(lightning.Trainer):
    """Lightning's trainer, which does not know how many batches `TrainBatches` has: the last epoch may have fewer.

    Args:
        total: number of the training's steps, as a schedule in `configure_optimizers` needs it (`OneCycleLR`).
        options: Lightning's.
    """

    def __init__(self, *, total: int, **options: Any) -> None:
        super().__init__(**options)
        self._total = total

    @property
    def estimated_stepping_batches(self) -> int:
        """The number of steps."""
        return self._total


def _precision(accelerator: AcceleratorProfile, *, whole: bool) -> Any:
    """Returns Lightning's `precision`. `Module` casts to bf16 itself; a module with steps of its own (`whole`) does not."""
    return {"fp16": "16-mixed", "bf16": "bf16-mixed" if whole else "32-true"}.get(accelerator.precision, "32-true")


def _own_training(module: lightning.LightningModule, trainer: lightning.Trainer) -> dict[str, Any]:
    """Returns what a LightningModule trained with, by the names of hyperparameters; releases it from its trainer."""
    optimizers = trainer.optimizers
    used: dict[str, Any] = {"optimizer": ", ".join(type(optimizer).__name__ for optimizer in optimizers)}
    if schedulers := [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs]:
        used["schedule"] = ", ".join(schedulers)
    elif optimizers and (rate := optimizers[0].param_groups[0].get("lr")) is not None:
        used["learning_rate"] = float(rate)
    module.trainer = None
    return used
