"""Hyperparameters as trainers receive them. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass

from switchyard.components.training.names import Optimizer, Schedule

EARLY_STOPPING_EPOCHS = 50
OPTIONAL_HYPERPARAMETERS = ("schedule", "warmup_steps", "weight_decay", "clip_norm", "label_smoothing", "accumulate_steps")


@dataclass(frozen=True)
class Hyperparameters:
    """The config's `HyperparametersConfig` with all defaults resolved.

    Attributes:
        epochs: maximum passes over the training split.
        steps: maximum optimizer steps; None sets no limit beyond `epochs`.
        patience: epochs without an improved `monitor` before training stops; None disables early stopping.
        monitor: metric of the eval split that chooses the best epoch and stops training.
        class_weights: weight per class index, or None.
        schedule: learning rate schedule, see `schedule.factor`.
        warmup_steps: optimizer steps in which the learning rate rises linearly to its value.
        weight_decay: decoupled weight decay, times the learning rate of the step; 0 disables it.
        clip_norm: maximum global norm of the gradient, to which larger gradients are scaled; None disables clipping.
        label_smoothing: share of each label that is spread equally over all classes.
        accumulate_steps: consecutive batches of an optimizer step, whose gradient is the mean over their rows; at the end of an
            epoch they may be fewer.
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
    label_smoothing: float = 0.0
    monitor: str = "val_loss"
    accumulate_steps: int = 1

    def total_steps(self, rows: int) -> int:
        """Returns the optimizer steps of a training over `rows` examples without early stopping."""
        return self.steps or self.epochs * self.steps_per_epoch(rows)

    def steps_per_epoch(self, rows: int) -> int:
        """Returns the optimizer steps of one pass over `rows` examples."""
        return math.ceil(rows / self.rows_per_step)

    @property
    def rows_per_step(self) -> int:
        """Examples of an optimizer step, across all workers; the last one of an epoch may have fewer."""
        return self.batch_size * self.accumulate_steps

    def eval_batch_size(self, parts: int) -> int:
        """Returns the global batch size for the eval split, a multiple of `parts` (workers or replicas)."""
        return math.ceil(max(self.batch_size, 1024) / parts) * parts
