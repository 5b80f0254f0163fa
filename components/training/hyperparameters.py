"""Hyperparameters as trainers receive them. Standard library only."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from switchyard.components.training.names import COMMON_TO_TREES, TREE_PARAMETER, Optimizer, Schedule

EARLY_STOPPING_EPOCHS = 50
OPTIONAL_HYPERPARAMETERS = ("schedule", "warmup_steps", "weight_decay", "clip_norm", "label_smoothing", "accumulate_steps")


@dataclass(frozen=True)
class Trees:
    """The shape of boosted trees, see the config's `TreesConfig`.

    Attributes:
        leaves: maximum number of leaves of a tree.
        depth: maximum depth of a tree; None sets no limit beyond `leaves`.
        min_leaf_rows: minimum number of rows in a leaf.
        row_share: share of the rows that a round draws, above 0 to 1.
        feature_share: share of the features that a tree draws, above 0 to 1.
        l1, l2: penalties on the values of leaves.
    """

    leaves: int = 31
    depth: int | None = None
    min_leaf_rows: int = 20
    row_share: float = 1.0
    feature_share: float = 1.0
    l1: float = 0.0
    l2: float = 0.0


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
        trees: for boosted trees, their shape. An epoch is then a round, `learning_rate` the factor of a tree's values, and only
            these, `patience`, `min_delta`, `seed` and `class_weights` apply.
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
    trees: Trees | None = None

    def used(self) -> dict[str, Any]:
        """Returns the values that apply, named as in the config, for the run's parameters."""
        values = asdict(self)
        if self.trees is None:
            return {name: value for name, value in values.items() if value is not None}
        common = {name: values[name] for name in COMMON_TO_TREES}
        rounds = {"rounds": self.epochs, **{n: values[n] for n in ("learning_rate", "patience", "min_delta", "monitor")}}
        trees = {f"{TREE_PARAMETER}{name}": value for name, value in {**rounds, **values["trees"]}.items()}
        return {name: value for name, value in {**common, **trees}.items() if value is not None}

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
