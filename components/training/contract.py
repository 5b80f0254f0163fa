"""The trainer contract: what a trainer is given, what it gives back. Framework-free (standard library and NumPy).

To add a trainer, subclass `Trainer`, fill in the three abstract methods and name the class in the config:
`trainer: {framework: my_module:MyTrainer}`. Everything around it (input, evaluation, registry, bundle) stays the same.
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
        name: its name.
        dtype: `float32` or `int64`.
        shape: without the batch dimension, `(1,)` for a scalar.
        vocabulary_size: for indices into a vocabulary, its size with the out-of-vocabulary buckets; else None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    vocabulary_size: int | None = None


@dataclass(frozen=True)
class ModelSpec:
    """What `build_model(spec)` is handed. The model takes a dict of batches and returns logits, shape (B, outputs).

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
    """See `switchyard.components.training.config.HyperparametersConfig`; here with everything decided.

    Attributes:
        epochs: the most passes over the training split.
        steps: the most optimizer steps; None: as many as the epochs hold.
        patience: epochs without a better `val_loss` before training stops; None: never.
        class_weights: weight per class index, or None.
        schedule: the learning rate's course, see `schedule.factor`.
        warmup_steps: optimizer steps in which the learning rate rises to its value.
        weight_decay: decoupled, times the learning rate of the step; 0: none.
        clip_norm: gradients of a larger norm, of all weights together, are scaled down to it; None: never.
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
        """Returns the optimizer steps of a training over `rows` examples that is not stopped early."""
        return self.steps or self.epochs * math.ceil(rows / self.batch_size)

    def eval_batch_size(self, parts: int) -> int:
        """Returns the rows of a batch of the eval split, of all workers or replicas together; they share it equally."""
        return math.ceil(max(self.batch_size, 1024) / parts) * parts


@dataclass(frozen=True)
class Shard:
    """One worker's part of every batch: the rows `index`, `index + count`, ... of it. No row is in two of them, all are in one.

    Attributes:
        index: the worker, from 0; the first one reports, saves and exports.
        count: workers.
    """

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the worker that speaks for all."""
        return self.index == 0

    def rows(self, batch: int) -> int:
        """Returns how many of a batch's rows are in this shard."""
        return max(0, -(-(batch - self.index) // self.count))


WHOLE = Shard()


@dataclass(frozen=True)
class Block:
    """Features that lie side by side in one array (rows, width): all scalars of one type, or one wider feature.

    Attributes:
        dtype: `float32` or `int64`.
        names: of the features, from left to right.
        shape: of each of them, without the batch dimension.
    """

    dtype: str
    names: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Columns of one feature."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Columns of all."""
        return self.size * len(self.names)

    def features(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the features in the block's array, shape (rows, width), by name: views of shape (rows, *shape)."""
        parts = np.split(array, len(self.names), axis=1) if len(self.names) > 1 else [array]
        return {name: part.reshape(-1, *self.shape) for name, part in zip(self.names, parts, strict=True)}


def blocks(features: Sequence[FeatureSpec]) -> tuple[Block, ...]:
    """Returns how features are laid out in blocks."""
    scalars: dict[str, list[str]] = {}
    for feature in features:
        if feature.shape == (1,):
            scalars.setdefault(feature.dtype, []).append(feature.name)
    wide = [Block(dtype, tuple(names), (1,)) for dtype, names in sorted(scalars.items())]
    return (*wide, *(Block(f.dtype, (f.name,), f.shape) for f in features if f.shape != (1,)))


@dataclass(frozen=True)
class Stretch:
    """Several batches, one after the other: what a framework is handed at once.

    Attributes:
        arrays: of each block, shape (rows, width).
        labels: shape (rows,).
        sizes: rows of each batch.
    """

    arrays: tuple[np.ndarray, ...]
    labels: np.ndarray
    sizes: tuple[int, ...]


class ExampleSource(Protocol):
    """One split of transformed examples, the same for every trainer.

    Labels are int64 class indices, or float32 values in a regression. Without `seed` rows come in the order of the files; with
    it the order depends on `seed` and `epoch` alone, whatever the shard. Of each batch of `batch_size` rows there is the
    shard's part. A shard that has no row of the last batch gets the batch's first row instead, which is not to count.
    """

    @property
    def rows(self) -> int:
        """Number of examples."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Where the features lie in a stretch's arrays."""

    def batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        """Yields one epoch: features by name, shape (B, *feature shape), and labels, shape (B,)."""

    def stretches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Iterator[Stretch]:
        """Yields the same batches, several at once: a hundred scalar features are one array, which the framework may cut."""


@dataclass(frozen=True)
class TrainRequest:
    """Everything a trainer needs.

    Attributes:
        spec: what the model looks at and gives.
        train, eval: the two splits; early stopping watches `eval`.
        hyperparameters: the same for every framework.
        accelerator: devices; resolved (never `auto`) when `fit` sees it.
        shard: which of several worker processes this is, and how many there are.
        build_model: the user's function, or None for the trainer's default model.
        checkpoint_dir: kept between a killed run and the next one; empty at first.
        export_dir: where the finished model goes.
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
    """What came of it.

    Attributes:
        epochs: passes finished, those before a resume included.
        steps: optimizer steps.
        best_epoch: the epoch (from 1) whose weights were exported.
        metrics: `loss`, `val_loss`, ... of that epoch.
        history: the same for every epoch.
        resumed_from_epoch: epochs that an earlier, killed run had done; 0 for a fresh one.
        parameters: number of trainable weights.
        device: what it ran on, in words.
        workers: devices that shared the work.
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
    """Several processes that train one model.

    Attributes:
        index: this process, from 0.
        count: how many there are.
        local_index: this process among those on its machine.
        exchange_addresses: called by all of them once, returns `host:port` of each, free for the trainer to listen on. For
            frameworks that do not find each other by PyTorch's variables.
    """

    index: int
    count: int
    local_index: int
    exchange_addresses: Callable[[], tuple[str, ...]]

    @property
    def shard(self) -> Shard:
        """This process's part of the examples."""
        return Shard(self.index, self.count)


class Trainer(abc.ABC):
    """Trains and exports one model. Subclasses fill in the three abstract methods.

    Attributes:
        name: stands in stage names, metrics and messages.
        supports: which of `precision`, `compile`, `deterministic`, `schedule`, `warmup_steps`, `weight_decay` and `clip_norm`
            this trainer follows; a config that asks for another is refused.
    """

    name: ClassVar[str]
    supports: ClassVar[frozenset[str]] = frozenset()

    def train(self, request: TrainRequest, report: Report) -> TrainResult:
        """Checks the devices, seeds and trains; leaves the model in `request.export_dir`.

        Args:
            request: see there.
            report: called with (steps so far, metrics) once an epoch. The names are the same in every framework: `loss`,
                `val_loss`, then `accuracy`, `val_accuracy` (classification), `val_auc` (binary) or `mae`, `val_mae`.

        Raises:
            UserError: the devices are not there, or the user's model does not fit.
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
        """Returns whether this is how the framework says that a device has no memory left."""
        return isinstance(error, MemoryError)

    def resolve(self, accelerator: AcceleratorProfile) -> AcceleratorProfile:
        """Returns the profile with `auto` replaced. Raises UserError when this machine or this trainer cannot do it."""
        nodes_here = 1 if variables.NODE in os.environ else accelerator.nodes
        resolved = accelerator.resolve(self.available_devices(), nodes_here=nodes_here)
        self._refuse_unsupported("trainer.accelerator", {n: getattr(accelerator, n) for n in ("precision", "compile")})
        self._refuse_unsupported("trainer", {"deterministic": accelerator.deterministic})
        self.processes(resolved)
        return resolved

    def check_hyperparameters(self, values: Mapping[str, Any]) -> None:
        """Raises UserError for hyperparameters that this trainer does not follow, by name as in the config."""
        self._refuse_unsupported("trainer.hyperparameters", {n: values[n] for n in OPTIONAL_HYPERPARAMETERS})

    def _refuse_unsupported(self, section: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if name not in self.supports and value not in (None, False, 0, "float32", "constant"):
                raise UserError(
                    f"{section}.{name}: the trainer {self.name!r} does not support it, received {value!r}; leave it out, or add "
                    f"{name!r} to the trainer's `supports` and follow it"
                )

    def processes(self, accelerator: AcceleratorProfile) -> int:
        """Returns how many processes train on one node; where it is more than one in all, each calls `train` with its shard.

        A trainer that can distribute its work overrides this.

        Raises:
            UserError: this trainer cannot do what the profile asks for.
        """
        for name in ("count", "nodes"):
            if getattr(accelerator, name) > 1:
                raise UserError(
                    f"trainer.accelerator.{name}: the trainer {self.name!r} trains on one device, received "
                    f"{getattr(accelerator, name)}; set it to 1, or override processes() in the trainer."
                )
        return 1

    def prepare(self, accelerator: AcceleratorProfile, group: WorkerGroup | None = None) -> None:  # noqa: B027 (most need none)
        """Called first in the training process, before its framework's first operation: the time to choose devices.

        Args:
            accelerator: the profile, `auto` included.
            group: the processes that train together; None: this one alone.
        """

    @abc.abstractmethod
    def available_devices(self) -> Mapping[str, int]:
        """Returns kind (cpu, gpu, tpu) -> how many are there."""

    @abc.abstractmethod
    def fit(self, request: TrainRequest, report: Report) -> TrainResult:
        """Trains, resuming from `checkpoint_dir` when there is something, and exports the best weights."""

    @classmethod
    @abc.abstractmethod
    def load_predictor(cls, export_dir: Path) -> Predictor:
        """Loads what `fit` exported.

        Returns:
            A function from transformed features (name -> (B, *shape)) to float32 (B, outputs): the probability of the last
            class (binary), of each class (multiclass), or the value (regression).
        """


def _out_of_memory(request: TrainRequest, error: Exception) -> TrainingError:
    batch, workers = request.hyperparameters.batch_size, request.accelerator.workers
    share = f" ({batch // workers} rows for each of {workers} workers)" if workers > 1 else ""
    # TensorFlow's begins with "Graph execution error:", and names operations before the allocation.
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
