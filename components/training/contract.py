"""The trainer contract: inputs and outputs of a trainer. Framework-free (standard library and NumPy).

To add a trainer, subclass `Trainer`, implement the abstract methods and name the class in the config:
`trainer: {framework: my_module:MyTrainer}`. Input, evaluation, registry and bundle do not change.
"""

from __future__ import annotations

import abc
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from switchyard.components.errors import TrainingError, UserError, first_line, text_of
from switchyard.components.process import variables
from switchyard.components.text.redaction import mask
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.names import Optimizer, Schedule

Batch = tuple[dict[str, np.ndarray], np.ndarray]
Report = Callable[[int, Mapping[str, float]], None]
Predictor = Callable[[Mapping[str, np.ndarray]], np.ndarray]

EARLY_STOPPING_EPOCHS = 50


@dataclass(frozen=True)
class FeatureSpec:
    """One transformed feature.

    Attributes:
        name: name of the feature.
        dtype: `float32` or `int64`.
        shape: without the batch dimension, `(1,)` for a scalar.
        vocabulary_size: for vocabulary indices, the vocabulary's size including the out-of-vocabulary buckets; else None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    vocabulary_size: int | None = None


@dataclass(frozen=True)
class ModelSpec:
    """The argument of `build_model(spec)`. The model maps a dict of batches to logits, shape (B, outputs).

    Attributes:
        features: the transformed features.
        task: binary, multiclass or regression.
        outputs: 1 for binary (the logit of the last class) and regression (the value), else the number of classes.
        parameters: the config's `trainer.model_parameters`.
    """

    features: tuple[FeatureSpec, ...]
    task: str
    outputs: int
    parameters: Mapping[str, Any] = field(default_factory=dict)


OPTIONAL_HYPERPARAMETERS = ("schedule", "warmup_steps", "weight_decay", "clip_norm")


@dataclass(frozen=True)
class Hyperparameters:
    """The config's `HyperparametersConfig` with all defaults resolved.

    Attributes:
        epochs: maximum passes over the training split.
        steps: maximum optimizer steps; None sets no limit beyond `epochs`.
        patience: epochs without an improved `val_loss` before training stops; None disables early stopping.
        class_weights: weight per class index, or None.
        schedule: learning rate schedule, see `schedule.factor`.
        warmup_steps: optimizer steps in which the learning rate rises linearly to its value.
        weight_decay: decoupled weight decay, times the learning rate of the step; 0 disables it.
        clip_norm: maximum global norm of the gradient, to which larger gradients are scaled; None disables clipping.
    """

    epochs: int
    steps: int | None
    batch_size: int
    learning_rate: float
    optimizer: Optimizer
    seed: int
    patience: int | None
    min_delta: float
    class_weights: tuple[float, ...] | None
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def total_steps(self, rows: int) -> int:
        """Returns the optimizer steps of a training over `rows` examples without early stopping."""
        return self.steps or self.epochs * math.ceil(rows / self.batch_size)

    def eval_batch_size(self, parts: int) -> int:
        """Returns the global batch size for the eval split, a multiple of `parts` (workers or replicas)."""
        return math.ceil(max(self.batch_size, 1024) / parts) * parts


@dataclass(frozen=True)
class Shard:
    """One worker's part of every batch: its rows `index`, `index + count`, ... Shards are disjoint and cover the batch.

    Attributes:
        index: index of the worker, from 0; the first one reports, saves and exports.
        count: number of workers.
    """

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the first worker, which reports for all."""
        return self.index == 0

    def rows(self, batch: int) -> int:
        """Returns the number of a batch's rows in this shard."""
        return max(0, -(-(batch - self.index) // self.count))


WHOLE = Shard()


@dataclass(frozen=True)
class Block:
    """Features stored side by side in one array (rows, width): all scalars of one dtype, or one wider feature.

    Attributes:
        dtype: `float32` or `int64`.
        names: names of the features, from left to right.
        shape: shape of each feature, without the batch dimension.
    """

    dtype: str
    names: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of columns of one feature."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Number of columns of all features."""
        return self.size * len(self.names)

    def features(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the features of a block's array, shape (rows, width), by name, as views of shape (rows, *shape)."""
        parts = np.split(array, len(self.names), axis=1) if len(self.names) > 1 else [array]
        return {name: part.reshape(-1, *self.shape) for name, part in zip(self.names, parts, strict=True)}


def blocks(features: Sequence[FeatureSpec]) -> tuple[Block, ...]:
    """Returns the block layout of the features."""
    scalars: dict[str, list[str]] = {}
    for feature in features:
        if feature.shape == (1,):
            scalars.setdefault(feature.dtype, []).append(feature.name)
    wide = [Block(dtype, tuple(names), (1,)) for dtype, names in sorted(scalars.items())]
    return (*wide, *(Block(f.dtype, (f.name,), f.shape) for f in features if f.shape != (1,)))


@dataclass(frozen=True)
class Stretch:
    """Consecutive batches, passed to a framework in one call.

    Attributes:
        arrays: one array per block, shape (rows, width).
        labels: shape (rows,).
        sizes: number of rows of each batch.
    """

    arrays: tuple[np.ndarray, ...]
    labels: np.ndarray
    sizes: tuple[int, ...]


class ExampleSource(Protocol):
    """One split of transformed examples, shared by all trainers.

    Labels are int64 class indices, or float32 values for a regression. Without `seed` rows keep the order of the files; with it
    the order depends only on `seed` and `epoch`, not on the shard. Of each batch of `batch_size` rows a shard receives its part.
    A shard without a row in the last batch receives the batch's first row as padding, which must not count.
    """

    @property
    def rows(self) -> int:
        """Number of examples."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Layout of the features in a stretch's arrays."""

    def batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        """Yields the batches of one epoch: features by name, shape (B, *feature shape), and labels, shape (B,)."""

    def stretches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Iterator[Stretch]:
        """Yields the same batches in groups: a hundred scalar features are one array, which the framework may split."""


@dataclass(frozen=True)
class TrainRequest:
    """The input of a trainer.

    Attributes:
        spec: inputs and outputs of the model.
        train, eval: the two splits; early stopping monitors `eval`.
        hyperparameters: hyperparameters, the same for every framework.
        accelerator: devices; resolved (never `auto`) when `fit` is called.
        shard: index of this worker process and number of workers.
        build_model: the user's function, or None for the trainer's default model.
        checkpoint_dir: checkpoint folder, kept between a killed run and the next one; empty at first.
        export_dir: folder of the exported model.
    """

    spec: ModelSpec
    train: ExampleSource
    eval: ExampleSource
    hyperparameters: Hyperparameters
    accelerator: AcceleratorProfile
    build_model: Callable[[ModelSpec], Any] | None
    checkpoint_dir: Path
    export_dir: Path
    shard: Shard = WHOLE


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
        supports: which of `precision`, `compile`, `deterministic`, `schedule`, `warmup_steps`, `weight_decay` and `clip_norm`
            this trainer implements; a config that sets another is an error.
    """

    name: ClassVar[str]
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
        random.seed(request.hyperparameters.seed)
        np.random.seed(request.hyperparameters.seed)
        request.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        request.export_dir.mkdir(parents=True, exist_ok=True)
        request = replace(request, accelerator=accelerator)
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

    def check_hyperparameters(self, values: Mapping[str, Any]) -> None:
        """Raises UserError for hyperparameters that this trainer does not support, named as in the config."""
        self._refuse_unsupported("trainer.hyperparameters", {n: values[n] for n in OPTIONAL_HYPERPARAMETERS})

    def _refuse_unsupported(self, section: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if name not in self.supports and value not in (None, False, 0, "float32", "constant"):
                raise UserError(
                    f"{section}.{name}: the trainer {self.name!r} does not support it, received {value!r}; leave it out, or add "
                    f"{name!r} to the trainer's `supports` and follow it"
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


def check_output(shape: tuple[int, ...], batch: int, spec: ModelSpec) -> None:
    """Raises UserError unless a model's output is (batch, spec.outputs)."""
    if tuple(shape) != (batch, spec.outputs):
        raise UserError(
            f"trainer.model: build_model returned a model whose output has shape {tuple(shape)} for {batch} examples; "
            f"a {spec.task} task needs logits of shape ({batch}, {spec.outputs})."
        )
