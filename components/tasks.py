"""The table of tasks: what a label holds, what a model outputs, and the columns of predictions.

To add a task, add a row here and to the metrics' formulas, and an entry to the tables of losses, sums, weighted metrics and
trivial scores, which are keyed by the task's name. All other code reads this table.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

BINARY, MULTICLASS, REGRESSION, QUANTILE = "binary", "multiclass", "regression", "quantile"
MULTIOUTPUT, MULTILABEL, RANKING, CUSTOM = "multioutput", "multilabel", "ranking", "custom"
DEFAULT_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name: name in the config.
        classes: smallest and largest number of the label's classes; None: the label is a quantity.
        activation: function from a model's outputs (logits) to its scores.
        score: name of a score, or its prefix if there are several.
        targets: what a score is of, if a model has several that are no classes: a `quantile`, or a `label` column of its own.
        groups: whether rows are compared within a group, the value of the config's `group`.
        own_shape: whether the output has a shape of its own, the config's `trainer.output_shape`; the score is one column of it.
    """

    name: str
    classes: tuple[int, int] | None
    activation: Literal["sigmoid", "softmax", "identity"]
    score: str
    targets: Literal["", "quantile", "label"] = ""
    groups: bool = False
    own_shape: bool = False

    @property
    def has_classes(self) -> bool:
        """Whether the label is a class."""
        return self.classes is not None

    @property
    def has_probabilities(self) -> bool:
        """Whether scores are probabilities."""
        return self.activation != "identity"

    @property
    def ascending(self) -> bool:
        """Whether a row's scores are sorted: fitted quantiles may cross, and sorting them never raises the loss of a row.

        Chernozhukov, Fernández-Val and Galichon, Quantile and probability curves without crossing, 2010.
        """
        return self.targets == "quantile"

    @property
    def has_means(self) -> bool:
        """Whether models' scores have a mean: those of a ranking have no common scale, an output of its own no known loss."""
        return not (self.groups or self.own_shape)

    @property
    def has_labels(self) -> bool:
        """Whether the label is several columns."""
        return self.targets == "label"

    @property
    def wide_labels(self) -> bool:
        """Whether trainers may receive several values per row as the label: several columns, a list, or what groups the rows."""
        return self.has_labels or self.groups or self.own_shape

    def fits(self, classes: int) -> bool:
        """Returns whether a label of the task may have this number of classes."""
        return self.classes[0] <= classes <= self.classes[1] if self.classes else classes == 0

    def fits_targets(self, targets: Sequence[str]) -> bool:
        """Returns whether a model of the task may have these targets."""
        if self.has_labels:
            return len(targets) > 1 and len(set(targets)) == len(targets)
        if not self.targets:
            return not targets
        try:
            quantiles = [0.0, *map(float, targets), 1.0]
        except ValueError:
            return False
        return bool(targets) and all(low < high for low, high in itertools.pairwise(quantiles))

    def fits_shape(self, shape: Sequence[int]) -> bool:
        """Returns whether a model of the task may have this shape of its own of a row's output; () is none."""
        return bool(shape) == self.own_shape and all(size >= 1 for size in shape)

    def outputs(self, classes: Sequence[Any], targets: Sequence[str] = (), shape: Sequence[int] = ()) -> int:
        """Returns the number of scores of a row: of an output with a shape of its own all of its numbers."""
        return math.prod(shape) if self.own_shape else len(self.score_names(classes, targets))

    def score_names(self, classes: Sequence[Any], targets: Sequence[str] = ()) -> list[str]:
        """Returns the names of the scores, in the order of the model's outputs.

        Args:
            classes: label values in the order of the model's outputs; empty for a quantity.
            targets: names of the targets; empty if the task has none.
        """
        several = classes if self.activation == "softmax" else targets
        return [f"{self.score}_{name}" for name in several] or [self.score]

    def prediction_names(self, classes: Sequence[Any], targets: Sequence[str] = ()) -> list[str]:
        """Returns the names of the columns of predictions: the choice if there are classes, then the scores."""
        chosen = ["prediction"] if self.has_classes else self.choices(targets)
        return [*chosen, *self.score_names(classes, targets)]

    def choices(self, targets: Sequence[str]) -> list[str]:
        """Returns the names of the columns with the choice, 0 or 1, for each label column; empty for other tasks."""
        return [f"prediction_{t}" for t in targets] if self.has_labels and self.has_probabilities else []


TASKS = {
    task.name: task
    for task in (
        Task(BINARY, (2, 2), "sigmoid", "probability"),
        Task(MULTICLASS, (2, 2**31), "softmax", "probability"),
        Task(REGRESSION, None, "identity", "prediction"),
        Task(QUANTILE, None, "identity", "quantile", targets="quantile"),
        Task(MULTIOUTPUT, None, "identity", "prediction", targets="label"),
        Task(MULTILABEL, None, "sigmoid", "probability", targets="label"),
        Task(RANKING, None, "identity", "score", groups=True),
        Task(CUSTOM, None, "identity", "prediction", own_shape=True),
    )
}


def middle(quantiles: Sequence[str]) -> int:
    """Returns the index of the quantile nearest to the median."""
    return min(range(len(quantiles)), key=lambda i: abs(float(quantiles[i]) - 0.5))
