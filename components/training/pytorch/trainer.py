"""The PyTorch trainer. Mirrors `tensorflow/trainer.py`: same names, same order."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import joblib
import torch
from torch import nn

from switchyard.components.errors import UserError
from switchyard.components.import_order import transformers_later
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.beside import Beside
from switchyard.components.training.contract import ALL_SETTINGS, Predictor, Report, Trainer, TrainRequest, TrainResult
from switchyard.components.training.examples import placeholder_batch
from switchyard.components.training.ledger import TrainingLedger
from switchyard.components.training.model_check import explained
from switchyard.components.training.model_spec import check_output
from switchyard.components.training.pytorch import loop
from switchyard.components.training.pytorch.checkpoints import CHECKPOINT, load
from switchyard.components.training.pytorch.default_model import default_model
from switchyard.components.training.pytorch.devices import tpus, xla_on_cpu
from switchyard.components.training.pytorch.export import export
from switchyard.components.training.pytorch.model_check import check_logits, check_loss, check_training, trains_itself
from switchyard.components.training.pytorch.numerics import numerics
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
        if request.accelerator.kind == "cpu":
            # Lightning looks for GPUs by NVIDIA's library, for processes that fork; PyTorch would open it in each step.
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        with numerics(request.accelerator):
            return self._fit(request, report)

    def _fit(self, request: TrainRequest, report: Report) -> TrainResult:
        hyper, shard = request.hyperparameters, request.shard
        torch.manual_seed(hyper.seed)
        ledger = TrainingLedger.open(request.checkpoint_dir, hyper)
        model = self._build(request)
        if (request.build_model or request.loss.function) and not ledger.epochs and shard.first:
            self._try_out(model, request)
        if request.start and not ledger.epochs:
            begin(model, request, request.start)
        freeze(model, request.freeze)
        torch.set_num_threads(threads(model, hyper.batch_size // shard.count))
        whole = trains_itself(model)
        used: dict[str, Any] = {"loss": f"{type(model).__name__}.training_step"} if whole else {}
        if not ledger.finished:
            used |= _train(model, request, ledger, report, whole=whole)
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


def _train(model: nn.Module, request: TrainRequest, ledger: TrainingLedger, report: Report, *, whole: bool) -> dict[str, Any]:
    """Trains from the ledger's last epoch on; returns what a model with a training of its own (`whole`) trained with."""
    with Beside() as writer:
        if loop.suits(request, whole=whole):
            loop.train(model, request, ledger, report, writer)
            return {}
        with transformers_later():
            from switchyard.components.training.pytorch import lightning_loop  # Lightning takes seconds to import
        return lightning_loop.train(model, request, ledger, report, writer, whole=whole)


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
