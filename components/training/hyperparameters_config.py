"""Config sections `trainer.hyperparameters` and `trainer.trees`, which the training process reads, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, StrictInt, model_validator

from switchyard.components.config import Number, Positive, Section
from switchyard.components.metrics import trained_names
from switchyard.components.training.names import Optimizer, Schedule

# YAML parses the class 1 as a number; the label's classes are identified by their text.
ClassWeights = Annotated[
    dict[str, Annotated[Number, Field(gt=0)]],
    BeforeValidator(lambda v: {str(k): w for k, w in v.items()} if isinstance(v, dict) else v),
]


if TYPE_CHECKING:
    StoppingMetric = str
else:  # computed from the metrics table, which mypy cannot evaluate
    StoppingMetric = Literal[tuple(trained_names())]


class EarlyStopping(Section):
    """Stop training when a metric of the eval split stops improving; the best epoch's weights are kept either way.

    Attributes:
        metric: the metric, by which the best epoch is chosen too; `val_auc` for binary and multilabel tasks, `val_mae` for
            regression and multioutput.
        patience: epochs without improvement before training stops.
        min_delta: smallest change of the metric for the better that counts as an improvement.
    """

    metric: StoppingMetric = "val_loss"
    patience: Positive = 5
    min_delta: Annotated[Number, Field(ge=0)] = 0.0


class HyperparametersConfig(Section):
    """Hyperparameters with the same names and meanings for every trainer. Give `epochs` or `steps`, not both.

    Attributes:
        epochs: passes over the training split, at most. Default: 50 with early stopping, 20 without.
        steps: optimizer steps instead of epochs.
        batch_size: examples per step, across all workers; must be divisible by the number of workers.
        learning_rate: learning rate, whatever the number of workers.
        optimizer: optimizer.
        schedule: course of the learning rate over all steps: `constant`, `linear` or `cosine` to 0, `step` (a tenth of it after
            each third) or `one_cycle` (rises for 30 % of the steps, then falls to nearly 0).
        warmup_steps: steps in which the learning rate rises linearly to its value, before `schedule` begins.
        weight_decay: decoupled weight decay, times the learning rate; of `adamw` (0.01 by default) and `sgd` (0).
        clip_norm: largest norm of a step's gradient, of all weights together; `null` disables clipping.
        label_smoothing: share of each label that is spread equally over all classes, in the losses `cross_entropy` and
            `focal`.
        accumulate_steps: batches of one step, whose gradient is the mean over their rows, for batches that do not fit into memory
            at once. `steps`, `warmup_steps` and `schedule` count steps; an epoch's last step may have fewer batches.
        seed: seed of weights, shuffling and dropout.
        early_stopping: early stopping on a metric of the eval split; `null` disables it, and the best epoch is that of the
            smallest `val_loss`.
        class_weights: `balanced`, or class to weight (classes not listed weigh 1).
    """

    epochs: Positive | None = None
    steps: Positive | None = None
    batch_size: Positive = 64
    learning_rate: Annotated[Number, Field(gt=0)] = 0.001
    optimizer: Optimizer = "adam"
    schedule: Schedule = "constant"
    warmup_steps: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 0
    weight_decay: Annotated[Number, Field(ge=0)] | None = None
    clip_norm: Annotated[Number, Field(gt=0)] | None = None
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    accumulate_steps: Positive = 1
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 42
    early_stopping: EarlyStopping | None = EarlyStopping()
    class_weights: Literal["balanced"] | ClassWeights | None = None

    @model_validator(mode="after")
    def _check(self) -> HyperparametersConfig:
        if self.epochs and self.steps:
            raise ValueError("epochs and steps exclude each other: give one")
        if self.schedule == "one_cycle" and self.warmup_steps:
            raise ValueError("schedule one_cycle includes a warm-up; remove warmup_steps")
        if self.weight_decay and self.optimizer in ("adam", "rmsprop"):
            raise ValueError(f"weight_decay: {self.optimizer} has no decoupled weight decay; use the optimizer adamw or sgd")
        return self


# LightGBM's limit.
MOST_LEAVES = 1 << 17
Share = Annotated[Number, Field(gt=0, le=1)]


class TreesConfig(Section):
    """Boosted trees: the hyperparameters of `framework: lightgbm`, which takes `seed` and `class_weights` from `hyperparameters`.

    Attributes:
        rounds: rounds of boosting, at most; each adds a tree (for several outputs one each) and counts as an epoch.
        learning_rate: factor of the values of each tree.
        leaves: leaves of a tree, at most.
        depth: depth of a tree, at most; `null` sets no limit.
        min_leaf_rows: rows in a leaf, at least.
        row_share: share of the rows that each round draws.
        feature_share: share of the features that each tree draws.
        l1: penalty on the absolute values of leaves.
        l2: penalty on the squared values of leaves.
        early_stopping: early stopping on a metric of the eval split, in rounds; `null` disables it.
    """

    rounds: Positive = 200
    learning_rate: Annotated[Number, Field(gt=0)] = 0.1
    leaves: Annotated[StrictInt, Field(ge=2, le=MOST_LEAVES)] = 31
    depth: Positive | None = None
    min_leaf_rows: Positive = 20
    row_share: Share = 1.0
    feature_share: Share = 1.0
    l1: Annotated[Number, Field(ge=0)] = 0.0
    l2: Annotated[Number, Field(ge=0)] = 0.0
    early_stopping: EarlyStopping | None = EarlyStopping(patience=20)
