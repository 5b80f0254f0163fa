"""The PyTorch trainer, based on Lightning. Mirrors `tensorflow/trainer.py`: same names, same order."""

from __future__ import annotations

import os
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import joblib
import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.profilers import PassThroughProfiler
from lightning_utilities.core.apply_func import apply_to_collection
from safetensors.torch import save_model
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from switchyard.components.errors import UserError, first_line
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.beside import Beside
from switchyard.components.training.contract import ALL_SETTINGS, Predictor, Report, Trainer, TrainRequest, TrainResult
from switchyard.components.training.example_source import Shard
from switchyard.components.training.examples import placeholder_batch
from switchyard.components.training.hyperparameters import Hyperparameters
from switchyard.components.training.ledger import TrainingLedger, check_finite
from switchyard.components.training.model_check import explained
from switchyard.components.training.model_spec import check_output
from switchyard.components.training.names import Optimizer
from switchyard.components.training.positional import by_name, positional, save_names
from switchyard.components.training.pytorch.archive import MODEL_FILE, save_program
from switchyard.components.training.pytorch.batches import EvalBatches, TrainBatches
from switchyard.components.training.pytorch.compile import compiled
from switchyard.components.training.pytorch.default_model import default_model
from switchyard.components.training.pytorch.hints import without_hints
from switchyard.components.training.pytorch.losses import row_losses
from switchyard.components.training.pytorch.metrics import Metrics, activated
from switchyard.components.training.pytorch.model_check import (
    check_logits,
    check_loss,
    check_training,
    refuse_averages,
    trains_itself,
)
from switchyard.components.training.pytorch.numerics import numerics
from switchyard.components.training.pytorch.placement import placement, spread, tpus, xla_on_cpu
from switchyard.components.training.pytorch.predictor import THREADS, PytorchPredictor
from switchyard.components.training.schedule import factor
from switchyard.components.user_code.loading import blamed, folder_of

_DEVICES = {"cpu": "cpu", "gpu": "cuda", "tpu": "xla"}
# Threshold for multithreaded steps: number of weights times rows of a step.
_LARGE_STEP = 30_000_000
_CHECKPOINT = ".ckpt"
_HPARAMS = {getattr(lightning.LightningModule, f"CHECKPOINT_HYPER_PARAMS_{key}") for key in ("KEY", "NAME", "TYPE")}
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

_NOTHING = nullcontext()

Features = dict[str, torch.Tensor]


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
        with numerics(request.accelerator):
            return self._fit(request, report)

    def _fit(self, request: TrainRequest, report: Report) -> TrainResult:
        hyper, shard = request.hyperparameters, request.shard
        lightning.seed_everything(hyper.seed, verbose=False)
        ledger = TrainingLedger.open(request.checkpoint_dir, hyper)
        model = self._build(request)
        if (request.build_model or request.loss.function) and not ledger.epochs and shard.first:
            self._try_out(model, request)
        torch.manual_seed(hyper.seed + shard.index)  # dropout must differ between workers
        torch.set_num_threads(threads(model, hyper.batch_size // shard.count))
        whole = trains_itself(model)
        module = cast(lightning.LightningModule, model) if whole else _Module(model, request)
        used: dict[str, Any] = {"loss": f"{type(model).__name__}.training_step"} if whole else {}
        callbacks = request.hooks.callbacks(request.spec, Callback)
        refuse_averages(callbacks)
        if not ledger.finished:
            with Beside() as writer:
                checkpoints = _Checkpoints(writer)
                # A scheduler of the user's optimizer may read the metrics, too.
                logged = bool(callbacks or request.hooks.build_optimizer)
                trainer = _Trainer(
                    **placement(request),
                    total=hyper.total_steps(request.train.rows),
                    precision=_precision(request.accelerator, whole=whole),
                    max_epochs=hyper.epochs,
                    plugins=[checkpoints] if request.accelerator.kind != "tpu" else None,
                    callbacks=[*callbacks, (_OwnEpochs if whole else _Epochs)(ledger, report, shard, checkpoints, logged=logged)],
                    logger=False,
                    enable_progress_bar=False,
                    gradient_clip_val=hyper.clip_norm,
                    accumulate_grad_batches=hyper.accumulate_steps,
                    enable_model_summary=False,
                    num_sanity_val_steps=0,
                    profiler=_Unprofiled(),
                    use_distributed_sampler=False,
                    default_root_dir=request.checkpoint_dir,
                )
                trainer.fit(
                    module,
                    TrainBatches(request, ledger),
                    EvalBatches(request),
                    ckpt_path=ledger.last(_CHECKPOINT) if ledger.epochs else None,
                    weights_only=True,
                )
            if whole:
                used |= _own_training(module, trainer)
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if shard.first:
            model = self._build(request) if request.accelerator.shard_model else model
            _load(model, ledger.best(_CHECKPOINT), prefix="" if whole else "model.")
            model = model.cpu().eval()
            if request.build_model:
                check_logits(model, request)
            _export(model, request)
        result = ledger.result(parameters=parameters, device=_device(request.accelerator.kind), workers=shard.count)
        return replace(result, used=used)

    def _build(self, request: TrainRequest) -> nn.Module:
        build = request.build_model or default_model
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
            _export(model, replace(request, export_dir=Path(folder)))
            self.load_predictor(Path(folder))(placeholder_batch(request.spec, 3))
        model.train()

    @classmethod
    def load_predictor(cls, export_dir: Path) -> Predictor:
        """See Trainer."""
        return PytorchPredictor.load_predictor(export_dir)


def _precision(accelerator: AcceleratorProfile, *, whole: bool) -> Any:
    """Returns Lightning's `precision`. `_Module` casts to bf16 itself; a module with steps of its own (`whole`) does not."""
    return {"fp16": "16-mixed", "bf16": "bf16-mixed" if whole else "32-true"}.get(accelerator.precision, "32-true")


class _Module(lightning.LightningModule):
    """A Lightning module: the user's model with the task's loss and metrics."""

    def __init__(self, model: nn.Module, request: TrainRequest) -> None:
        super().__init__()
        self.model = model
        # Not registered as a submodule: its weights are the model's.
        self.__dict__["_run"] = compiled(model, request) if request.accelerator.compile else model
        # Lightning's own covers losses and metrics too, which slows small steps down, and does not support XLA.
        device, bf16 = _DEVICES[request.accelerator.kind], request.accelerator.precision == "bf16"
        self._precision = partial(torch.autocast, device, dtype=torch.bfloat16) if bf16 else nullcontext
        self._hyper, self._own, self._spec = request.hyperparameters, request.hooks, request.spec
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
        if self._spread and self.device_mesh is not None:
            spread(self.model, self.device_mesh)
            self._spread = False  # Lightning calls this more than once

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
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
        losses, output, labels, weights = self._step(batch, by_class=False)
        if self._rows(index, self._hyper.eval_batch_size(self._shard.count), self._eval_rows):
            self.val_metrics.add(losses, output, labels, weights)

    def _rows(self, index: int, batch_size: int, rows: int) -> int:
        """Returns the number of this worker's rows of a split's batch."""
        return self._shard.rows(min(batch_size, rows - index * batch_size))

    def configure_optimizers(self) -> Any:
        if own := self._own.optimizer(self.model, self._spec, (torch.optim.Optimizer, dict)):
            return own
        hyper, total = self._hyper, self._hyper.total_steps(self._train_rows)
        optimizer = _optimizer(hyper, self.parameters(), fused=self._fused and self.device.type in ("cpu", "cuda"))
        if hyper.schedule == "constant" and not hyper.warmup_steps:
            return optimizer
        course = LambdaLR(optimizer, lambda step: float(factor(np, hyper.schedule, step, total, hyper.warmup_steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": course, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.device_mesh is not None:
            # A sharded checkpoint is loaded only if each weight has an optimizer state, including unused weights.
            for weight in self.parameters():
                if weight.grad is None and weight.requires_grad and weight not in optimizer.state:
                    weight.grad = torch.zeros_like(weight)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        # Lightning would traverse a batch that is on the device without moving anything.
        there = batch[1].device.type == device.type
        return batch if there else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _step(self, batch: Any, *, by_class: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Returns weighted losses (B,), output (B, outputs), labels (B,) and, of weighted examples, the rows' weights (B,)."""
        features, labels, *rest = batch
        weights = rest[0] if rest else None
        one_row = self.training and len(labels) == 1
        with self._precision(), _batch_norm_at_rest(self.model) if one_row else nullcontext():
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
def _batch_norm_at_rest(model: nn.Module) -> Iterator[None]:
    """Switches batch normalization to its running statistics: PyTorch raises for a batch of one row, which has no variance."""
    layers = [m for m in model.modules() if isinstance(m, _BATCH_NORM) and m.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


class _Unprofiled(PassThroughProfiler):
    """No profiler. Lightning enters one for every hook, two dozen times per step, and its own starts a generator each time."""

    def profile(self, action_name: str) -> Any:
        return _NOTHING


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


class _Epochs(Checkpoint):
    """A callback at the end of each epoch: reports metrics, writes the checkpoint, stops when the ledger is finished.

    Lightning calls a `Checkpoint` after all other callbacks, also after its own `EarlyStopping`.
    """

    def __init__(self, ledger: TrainingLedger, report: Report, shard: Shard, checkpoints: _Checkpoints, *, logged: bool) -> None:
        self._ledger, self._report, self._shard, self._logged = ledger, report, shard, logged
        self._checkpoints = checkpoints
        self._metrics: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        vars(pl_module).pop("lr_scheduler_step", None)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._metrics = {**pl_module.train_metrics.result(), **pl_module.val_metrics.result()}
        if self._logged:  # for the user's code; the values are those of all workers
            pl_module.log_dict(self._metrics, sync_dist=False)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        metrics = self._metrics
        check_finite("loss", metrics["loss"], trainer.current_epoch + 1)
        steps = self._steps(trainer)
        self._ledger.record(steps, metrics)
        self._report(steps, self._ledger.history[-1])

    def _steps(self, trainer: Any) -> int:
        """Returns the number of steps at the end of an epoch."""
        return int(trainer.global_step)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        # Runs after validation and after the user's callbacks, when Lightning's loop state is complete.
        self._ledger.stopped |= trainer.should_stop
        # Lightning steps a ReduceLROnPlateau after this hook, where the checkpoint would lack it.
        trainer.fit_loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        pl_module.lr_scheduler_step = _nothing
        self._checkpoints.save(trainer, self._ledger, first=self._shard.first)
        trainer.should_stop = self._ledger.finished


class _OwnEpochs(_Epochs):
    """The end of an epoch of a LightningModule with a training of its own, whose metrics are those that it logs."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._sum: Any = 0.0
        self._rows = self._batches = 0

    def _steps(self, trainer: Any) -> int:
        # Lightning counts the steps of each optimizer of the module. A step of the training is a batch.
        return self._ledger.steps + self._batches

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
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


class _Checkpoints(TorchCheckpointIO):
    """Copies a checkpoint's state and writes it beside the next epoch. A TPU's checkpoint is written at once, by PyTorch/XLA."""

    def __init__(self, writer: Beside) -> None:
        self._writer = writer
        self._temporary: Path | None = None
        self._state: Any = None
        self._pinned: list[torch.Tensor] = []
        self._loadable = False

    def save(self, trainer: Any, ledger: TrainingLedger, *, first: bool) -> None:
        """Saves the epoch that was recorded last, then the ledger. Collective call; the first worker writes."""
        self._writer.wait()  # one copy of the state at a time
        path = ledger.last(_CHECKPOINT)
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
        self._pinned = []
        self._state = apply_to_collection(state, torch.Tensor, lambda tensor: self._copy(tensor.detach(), next(free, None)))

    def _copy(self, tensor: torch.Tensor, free: torch.Tensor | None) -> torch.Tensor:
        """Copies a tensor; from a GPU to pinned memory, `free` if it fits, in the order of the GPU's work and without waiting."""
        if not tensor.is_cuda:
            return tensor.to("cpu", copy=True)
        if free is None or (free.shape, free.dtype) != (tensor.shape, tensor.dtype):
            free = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._pinned.append(free)
        return free.copy_(tensor, non_blocking=True)

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


def _load(model: nn.Module, checkpoint: Path, prefix: str) -> None:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def _export(model: nn.Module, request: TrainRequest) -> None:
    names = [f.name for f in request.spec.features]

    class Served(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, features: Features) -> torch.Tensor:
            return activated(self.model(by_name(features, names)).float(), request)

    example = positional({k: torch.from_numpy(v) for k, v in placeholder_batch(request.spec, 4).items()}, names)
    shapes = {k: {0: torch.export.Dim.DYNAMIC} for k in example}
    try:
        program = torch.export.export(Served().eval(), (example,), dynamic_shapes=(shapes,))
    except Exception as error:
        raise UserError(
            f"trainer.model: torch.export cannot export the model: {first_line(error)}. Keep Python control flow on "
            "tensor values, and shapes fixed to one batch size, out of forward."
        ) from error
    save_program(program, request.export_dir / MODEL_FILE, features=len(names))
    save_names(request.export_dir, names)
    save_model(model, request.export_dir / "weights.safetensors")


def _optimizer(hyper: Hyperparameters, parameters: Any, *, fused: bool) -> torch.optim.Optimizer:
    """Returns the optimizer; with `fused` one call updates all parameters."""
    rate, decay = hyper.learning_rate, hyper.weight_decay
    optimizers: dict[Optimizer, Callable[[], torch.optim.Optimizer]] = {
        "adam": lambda: torch.optim.Adam(parameters, rate, eps=1e-7, fused=fused),
        "adamw": lambda: torch.optim.AdamW(parameters, rate, weight_decay=decay, eps=1e-7, fused=fused),
        # Without momentum PyTorch's SGD weight decay, which is added to the gradient, equals decoupled decay.
        "sgd": lambda: torch.optim.SGD(parameters, rate, weight_decay=decay, fused=fused),
        "rmsprop": lambda: torch.optim.RMSprop(parameters, rate, alpha=0.9, eps=1e-7),
    }
    return optimizers[hyper.optimizer]()


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
