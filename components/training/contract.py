"""The trainer contract: inputs and outputs of a trainer. Framework-free (standard library and NumPy).

To add a trainer, subclass `Trainer`, implement the abstract methods and name the class in the config:
`trainer: {framework: my_module:MyTrainer}`. Input, evaluation, registry and bundle do not change.
"""

from __future__ import annotations

import abc
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from switchyard.components.errors import TrainingError, UserError, first_line, text_of
from switchyard.components.process import variables
from switchyard.components.tasks import TASKS
from switchyard.components.text.redaction import mask
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.example_source import WHOLE, ExampleSource, Shard
from switchyard.components.training.hooks import HOOKS, NO_HOOKS, Hooks, hooks_in
from switchyard.components.training.hyperparameters import OPTIONAL_HYPERPARAMETERS, Hyperparameters
from switchyard.components.training.losses import Loss
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.names import FRAMEWORKS
from switchyard.components.training.start import Start

# What the trainers of networks support, see `Trainer.supports`.
ALL_SETTINGS = frozenset(
    {
        "precision",
        "compile",
        "deterministic",
        "model",
        "loss",
        "class_weights",
        "early_stopping",
        "sample_weight",
        "start_from",
        "freeze",
        *HOOKS,
        *OPTIONAL_HYPERPARAMETERS,
    }
)
Report = Callable[[int, Mapping[str, float]], None]
Predictor = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class TrainRequest:
    """The input of a trainer.

    Attributes:
        spec: inputs and outputs of the model.
        train, eval: the two splits; early stopping monitors `eval`.
        hyperparameters: hyperparameters, the same for every framework.
        loss: the loss, with its parameters.
        accelerator: devices; resolved (never `auto`) when `fit` is called.
        shard: index of this worker process and number of workers.
        build_model: the user's function, or None for the trainer's default model.
        checkpoint_dir: checkpoint folder, kept between a killed run and the next one; empty at first.
        export_dir: folder of the exported model.
        hooks: the optional functions of the user's model file.
        start: the registered version that the training starts from; None for a fresh one.
        freeze: patterns of names of weights that are not trained.
    """

    spec: ModelSpec
    train: ExampleSource
    eval: ExampleSource
    hyperparameters: Hyperparameters
    loss: Loss
    accelerator: AcceleratorProfile
    build_model: Callable[[ModelSpec], Any] | None
    checkpoint_dir: Path
    export_dir: Path
    shard: Shard = WHOLE
    hooks: Hooks = NO_HOOKS
    start: Start | None = None
    freeze: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes:
        epochs: completed epochs, including those before a resume.
        steps: optimizer steps.
        best_epoch: the epoch (from 1) whose weights were exported.
        metrics: `loss`, `val_loss`, ... of that epoch.
        history: the same metrics for every epoch.
        resumed_from_epoch: epochs completed by an earlier, killed run; 0 for a fresh run.
        parameters: number of trainable weights.
        device: description of the device.
        workers: number of devices that shared the training.
        used: the loss, the optimizer and the like of a model with a training of its own, in place of the hyperparameters, for the
            run's parameters.
    """

    epochs: int
    steps: int
    best_epoch: int
    metrics: Mapping[str, float]
    history: tuple[Mapping[str, float], ...]
    resumed_from_epoch: int
    parameters: int
    device: str
    workers: int = 1
    used: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerGroup:
    """A group of processes that train one model.

    Attributes:
        index: index of this process, from 0.
        count: number of processes.
        local_index: index of this process among those on its machine.
        exchange_addresses: collective call, once per process; returns a free `host:port` of each process to listen on. For
            frameworks that do not discover each other by PyTorch's variables.
    """

    index: int
    count: int
    local_index: int
    exchange_addresses: Callable[[], tuple[str, ...]]

    @property
    def shard(self) -> Shard:
        """The shard of the examples for this process."""
        return Shard(self.index, self.count)


class Trainer(abc.ABC):
    """A trainer and exporter of one model. Subclasses implement the abstract methods.

    Attributes:
        name: used in stage names, metrics and messages.
        boosts_trees: whether the request's hyperparameters come from the config's `trainer.trees`.
        supports: which of `precision`, `compile`, `deterministic`, `model`, `loss`, `sample_weight`, `class_weights`,
            `start_from`, `freeze`, `early_stopping`, `schedule`, `warmup_steps`, `weight_decay`, `clip_norm`, `label_smoothing`,
            `accumulate_steps`, `build_loss`, `build_optimizer`, `build_callbacks` (also of `trainer.callbacks`) and
            `build_metrics` this trainer implements; a config that sets another is an error.
    """

    name: ClassVar[str]
    boosts_trees: ClassVar[bool] = False
    supports: ClassVar[frozenset[str]] = frozenset()

    def train(self, request: TrainRequest, report: Report) -> TrainResult:
        """Validates the devices, seeds and trains; writes the model to `request.export_dir`.

        Args:
            request: see `TrainRequest`.
            report: called with (steps so far, metrics) once an epoch. The names are the same in every framework: `loss`,
                `val_loss`, then `accuracy`, `val_accuracy` (classification), `val_auc` (binary) or `mae`, `val_mae`.

        Raises:
            UserError: the devices are not available, or the user's model does not match the spec.
            TrainingError: training diverged, or ran out of memory.
        """
        accelerator = self.resolve(request.accelerator)
        self._refuse_unsupported(
            "trainer", {"model": request.build_model and "build_model", "sample_weight": request.train.weighted}
        )
        random.seed(request.hyperparameters.seed)
        np.random.seed(request.hyperparameters.seed)
        request.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        request.export_dir.mkdir(parents=True, exist_ok=True)
        request = replace(request, accelerator=accelerator)
        _check_queries(request)
        if request.loss.of_log and request.shard.first:
            _check_counts(request)
        try:
            return self.fit(request, report)
        except Exception as error:
            if self.is_out_of_memory(error):
                raise _out_of_memory(request, error) from error
            raise

    def is_out_of_memory(self, error: Exception) -> bool:
        """Returns whether the error is the framework's out-of-memory error."""
        return isinstance(error, MemoryError)

    def resolve(self, accelerator: AcceleratorProfile) -> AcceleratorProfile:
        """Returns the profile with `auto` resolved. Raises UserError if this machine or this trainer does not support it."""
        nodes_here = 1 if variables.NODE in os.environ else accelerator.nodes
        resolved = accelerator.resolve(self.available_devices(), nodes_here=nodes_here)
        self._refuse_unsupported("trainer.accelerator", {n: getattr(accelerator, n) for n in ("precision", "compile")})
        self._refuse_unsupported("trainer", {"deterministic": accelerator.deterministic})
        self.processes(resolved)
        return resolved

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raises UserError for settings that this trainer does not support.

        Args:
            settings: what differs from the defaults in the `TrainerSettings`, as plain data.
        """
        code = settings.get("code")
        self._refuse_unsupported("trainer.model", {hook: hook for hook in hooks_in(code["path"] if code else None)})
        given = {name: settings.get(name) for name in ("loss", "sample_weight", "start_from", "freeze")}
        self._refuse_unsupported("trainer", {**given, "model": code and os.path.basename(code["path"])})
        if callbacks := settings.get("callbacks_code"):
            self._refuse_unsupported("trainer.callbacks", {"build_callbacks": os.path.basename(callbacks["path"])})
        stopping = "trees" if self.boosts_trees else "hyperparameters"
        keys = {"hyperparameters": ["class_weights"], "trees": []}
        keys[stopping] += ["early_stopping", *([] if self.boosts_trees else OPTIONAL_HYPERPARAMETERS)]
        for section, names in keys.items():
            given = settings.get(section) or {}
            self._refuse_unsupported(f"trainer.{section}", {name: given.get(name) for name in names})

    def _refuse_unsupported(self, section: str, values: Mapping[str, Any]) -> None:
        own = self.name not in FRAMEWORKS
        for name, value in values.items():
            one = name == "accumulate_steps" and value == 1
            if name not in self.supports and not one and value not in (None, False, 0, "float32", "constant"):
                fix = f"add {name!r} to the trainer's `supports` and follow it" if own else "choose another trainer.framework"
                if not own and section == "trainer" and name in ("loss", "model"):
                    fix = f"give it to another framework by its name, as {{tensorflow: {value}}}"
                raise UserError(
                    f"{section}.{name}: the trainer {self.name!r} does not support it, received {value!r}; leave it out, or {fix}"
                )

    def processes(self, accelerator: AcceleratorProfile) -> int:
        """Returns the number of processes per node; if there is more than one in total, each calls `train` with its shard.

        Override this in a trainer that supports distributed training.

        Raises:
            UserError: this trainer does not support the profile.
        """
        for name in ("count", "nodes"):
            if getattr(accelerator, name) > 1:
                raise UserError(
                    f"trainer.accelerator.{name}: the trainer {self.name!r} trains on one device, received "
                    f"{getattr(accelerator, name)}; set it to 1, or override processes() in the trainer."
                )
        return 1

    def prepare(self, accelerator: AcceleratorProfile, group: WorkerGroup | None = None) -> None:  # noqa: B027 (most need none)
        """Selects devices; runs first in the training process, before the framework's first operation.

        Args:
            accelerator: the profile, `auto` included.
            group: the processes that train together; None if this process trains alone.
        """

    @abc.abstractmethod
    def available_devices(self) -> Mapping[str, int]:
        """Returns kind (cpu, gpu, tpu) -> number of available devices."""

    @abc.abstractmethod
    def fit(self, request: TrainRequest, report: Report) -> TrainResult:
        """Trains, resuming from `checkpoint_dir` if it has a checkpoint, and exports the best weights."""

    @classmethod
    @abc.abstractmethod
    def load_predictor(cls, export_dir: Path) -> Predictor:
        """Loads the model exported by `fit`.

        Returns:
            A function from transformed features (name -> (B, *shape)) to float32 (B, outputs): the probability of the last
            class (binary), of each class (multiclass), or the value (regression).
        """


def _check_queries(request: TrainRequest) -> None:
    """Raises UserError for settings of a ranking task that would cut the queries of a batch."""
    if not TASKS[request.spec.task].groups:
        return
    accelerator, hyper = request.accelerator, request.hyperparameters
    if accelerator.workers > 1 or accelerator.kind == "tpu":
        where = f"{accelerator.workers} workers" if accelerator.workers > 1 else "a TPU, whose batches have one size"
        raise UserError(
            f"trainer.accelerator: a ranking task keeps the rows of a query in one batch, received {where}; set kind to cpu or "
            "gpu, and count and nodes to 1"
        )
    if hyper.accumulate_steps > 1:
        raise UserError(
            f"trainer.hyperparameters.accumulate_steps: the batches of a ranking differ in their rows, received "
            f"{hyper.accumulate_steps}; leave it out, and set a larger batch_size"
        )
    largest = max(getattr(source, "largest", 0) for source in (request.train, request.eval))
    if largest > hyper.batch_size:
        raise UserError(
            f"trainer.hyperparameters.batch_size: {hyper.batch_size}, and a query has {largest} rows, which stay in one batch; "
            f"set it to at least {largest}"
        )


def _check_counts(request: TrainRequest) -> None:
    for stretch in request.train.stretches(request.hyperparameters.batch_size):
        if (negative := stretch.labels[stretch.labels < 0]).size:
            raise UserError(
                f"trainer.loss: {request.loss.name} needs labels of 0 and above, received {negative[0]:g}; use mse, mae or huber"
            )


def _out_of_memory(request: TrainRequest, error: Exception) -> TrainingError:
    batch, workers = request.hyperparameters.batch_size, request.accelerator.workers
    share = f" ({batch // workers} rows for each of {workers} workers)" if workers > 1 else ""
    # TensorFlow's message begins with "Graph execution error:" and names operations before the allocation.
    lines = [line.strip() for line in text_of(error).splitlines() if "alloc" in line.lower()]
    reason = mask(lines[0])[:300].rstrip(".") if lines else first_line(error)
    return TrainingError(
        f"training ran out of memory on the {request.accelerator.kind} with trainer.hyperparameters.batch_size {batch}{share}: "
        f"{reason}. Try a smaller batch_size, trainer.accelerator.precision bf16, more workers (trainer.accelerator.count), or a "
        "smaller model."
    )
