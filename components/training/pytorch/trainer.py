"""The PyTorch trainer, based on Lightning. Mirrors `tensorflow/trainer.py`: same names, same order."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import joblib
import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from switchyard.components.errors import UserError
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.beside import Beside
from switchyard.components.training.contract import ALL_SETTINGS, Predictor, Report, Trainer, TrainRequest, TrainResult
from switchyard.components.training.examples import placeholder_batch
from switchyard.components.training.ledger import TrainingLedger
from switchyard.components.training.model_check import explained
from switchyard.components.training.model_spec import check_output
from switchyard.components.training.pytorch.batches import EvalBatches, TrainBatches
from switchyard.components.training.pytorch.default_model import default_model
from switchyard.components.training.pytorch.epochs import CHECKPOINT, Checkpoints, Epochs, OwnEpochs, Unprofiled, load
from switchyard.components.training.pytorch.export import export
from switchyard.components.training.pytorch.hints import without_hints
from switchyard.components.training.pytorch.model_check import (
    check_logits,
    check_loss,
    check_training,
    refuse_averages,
    trains_itself,
)
from switchyard.components.training.pytorch.module import Module
from switchyard.components.training.pytorch.numerics import numerics
from switchyard.components.training.pytorch.placement import placement, tpus, xla_on_cpu
from switchyard.components.training.pytorch.predictor import THREADS, PytorchPredictor
from switchyard.components.training.pytorch.start import begin, freeze
from switchyard.components.user_code.loading import blamed, folder_of

# Threshold for multithreaded steps: number of weights times rows of a step.
_LARGE_STEP = 30_000_000


class PytorchTrainer(Trainer):
    """A trainer of `torch.nn.Module`s that take a dict of tensors; exports by `torch.export` (no pickle, no user code needed)."""

    name = "pytorch"
    supports = ALL_SETTINGS

    def available_devices(self) -> Mapping[str, int]:
        """See Trainer."""
        return {"cpu": os.cpu_count() or 1, "gpu": torch.cuda.device_count(), "tpu": tpus()}

    def processes(self, accelerator: AcceleratorProfile) -> int:
        """See Trainer. Uses one process per device."""
        if accelerator.kind == "tpu" and accelerator.workers > 1:
            raise UserError(
                f"trainer.accelerator: the PyTorch trainer trains on one TPU, received {accelerator.workers}; set count and "
                "nodes to 1, or use the TensorFlow trainer"
            )
        return accelerator.count

    def is_out_of_memory(self, error: Exception) -> bool:
        """See Trainer."""
        # On CPUs and XLA devices PyTorch raises a plain RuntimeError.
        signs = ("DefaultCPUAllocator", "RESOURCE_EXHAUSTED")
        return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in signs)

    def fit(self, request: TrainRequest, report: Report) -> TrainResult:
        """See the base class."""
        without_hints()
        if request.accelerator.kind == "cpu":
            # Lightning looks for GPUs by NVIDIA's library, for processes that fork; PyTorch would open it in each step.
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        with numerics(request.accelerator):
            return self._fit(request, report)

    def _fit(self, request: TrainRequest, report: Report) -> TrainResult:
        hyper, shard = request.hyperparameters, request.shard
        lightning.seed_everything(hyper.seed, verbose=False)
        ledger = TrainingLedger.open(request.checkpoint_dir, hyper)
        model = self._build(request)
        if (request.build_model or request.loss.function) and not ledger.epochs and shard.first:
            self._try_out(model, request)
        if request.start and not ledger.epochs:
            begin(model, request, request.start)
        freeze(model, request.freeze)
        torch.set_num_threads(threads(model, hyper.batch_size // shard.count))
        whole = trains_itself(model)
        module = cast(lightning.LightningModule, model) if whole else Module(model, request)
        used: dict[str, Any] = {"loss": f"{type(model).__name__}.training_step"} if whole else {}
        if not ledger.finished:
            trainer = _train(module, request, ledger, report, whole=whole)
            if whole:
                used |= _own_training(module, trainer)
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if shard.first:
            model = self._build(request) if request.accelerator.shard_model else model
            load(model, ledger.best(CHECKPOINT), prefix="" if whole else "model.")
            model = _for_export(model.cpu().eval())
            if request.build_model:
                check_logits(model, request)
            export(model, request)
        result = ledger.result(parameters=parameters, device=_device(request.accelerator.kind), workers=shard.count)
        return replace(result, used=used)

    def _build(self, request: TrainRequest) -> nn.Module:
        build = request.build_model or partial(default_model, start=request.start)
        with blamed("trainer.model: build_model failed: ", folder_of(build)):
            model = build(request.spec)
            batch = {k: torch.from_numpy(v) for k, v in placeholder_batch(request.spec, 2).items()}
            output = model.eval()(batch) if isinstance(model, nn.Module) else None
        if output is None:
            raise UserError(f"trainer.model: build_model must return a torch.nn.Module, received {type(model).__name__}.")
        check_output(tuple(output.shape), 2, request.spec)
        return cast(nn.Module, model.train())

    def _try_out(self, model: nn.Module, request: TrainRequest) -> None:
        """Runs all steps that follow training with the untrained model, so that their errors appear before training."""
        check_training(model, request)
        with explained(request.build_model):
            check_logits(model.eval(), request)
            check_loss(model, request)
        with tempfile.TemporaryDirectory(prefix="switchyard-") as folder:
            export(_for_export(model), replace(request, export_dir=Path(folder)))
            self.load_predictor(Path(folder))(placeholder_batch(request.spec, 3))
        model.train()

    @classmethod
    def load_predictor(cls, export_dir: Path) -> Predictor:
        """See Trainer."""
        return PytorchPredictor.load_predictor(export_dir)


def _for_export(model: nn.Module) -> nn.Module:
    """Returns what is exported: what `model.for_export()` returns, such as a copy with an adapter in its weights, or itself."""
    merge = getattr(model, "for_export", None)
    if not callable(merge):
        return model
    with blamed("trainer.model: for_export failed: ", folder_of(type(model))):
        found = merge()
    if not isinstance(found, nn.Module):
        raise UserError(f"trainer.model: for_export must return a torch.nn.Module, received {type(found).__name__}.")
    return found.eval()


def _train(
    module: lightning.LightningModule, request: TrainRequest, ledger: TrainingLedger, report: Report, *, whole: bool
) -> lightning.Trainer:
    """Trains from the ledger's last epoch on, by Lightning's `fit`. `whole`: the user's module has a training of its own."""
    hyper = request.hyperparameters
    callbacks = request.hooks.callbacks(request.spec, Callback)
    refuse_averages(callbacks)
    # A scheduler of the user's optimizer may read the metrics, too.
    logged = bool(callbacks or request.hooks.build_optimizer)
    with Beside() as writer:
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
    return trainer


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


def threads(model: nn.Module, batch_size: int) -> int:
    """Returns the number of CPU threads per step: `OMP_NUM_THREADS`, else one for small steps and all cores for large ones.

    Small steps do not gain from more threads: on two cores, two threads take 1.4 times as long as one at 5 million weights times
    rows, and 0.65 times as long from 300 million on.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return THREADS
    weights = sum(p.numel() for p in model.parameters())
    return joblib.cpu_count() if weights * batch_size >= _LARGE_STEP else 1


def _device(kind: str) -> str:
    if kind == "tpu" and xla_on_cpu():
        return "tpu (PyTorch/XLA on a CPU)"
    return f"gpu ({torch.cuda.get_device_name(0)})" if kind == "gpu" else kind
