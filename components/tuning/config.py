"""Config section `tune`: search space, budget and metric of the hyperparameter search."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field, StrictInt, ValidationError, model_validator

from switchyard.components.config import LARGEST, Number, Positive, Section
from switchyard.components.errors import UserError, did_you_mean
from switchyard.components.metrics import trained_names
from switchyard.components.training.hyperparameters_config import MOST_LEAVES
from switchyard.components.training.names import MODEL_PARAMETER, NETWORKS, TREE_PARAMETER, TREES, Optimizer, Schedule

# Hyperparameter -> allowed values: whole numbers or numbers above 0, shares between 0 and 1, parts above 0 up to 1, or choices.
SEARCHABLE: dict[str, str | tuple[str, ...]] = {
    "learning_rate": "number",
    "batch_size": "whole",
    "epochs": "whole",
    "optimizer": get_args(Optimizer),
    "schedule": get_args(Schedule),
    "warmup_steps": "whole",
    "weight_decay": "number",
    "clip_norm": "number",
    "label_smoothing": "share",
    "accumulate_steps": "whole",
}
SEARCHABLE_TREES = {
    f"{TREE_PARAMETER}{name}": kind
    for name, kind in {
        "learning_rate": "number",
        "rounds": "whole",
        "leaves": "whole",
        "depth": "whole",
        "min_leaf_rows": "whole",
        "row_share": "part",
        "feature_share": "part",
        "l1": "number",
        "l2": "number",
    }.items()
}
if TYPE_CHECKING:
    TuneMetric = str
else:  # computed from the metrics table, which mypy cannot evaluate
    TuneMetric = Literal[tuple(trained_names())]


class Dimension(Section):
    """The values of one hyperparameter: `{low, high}`, both inclusive, or `choices`. Short form in YAML: a list of choices.

    Attributes:
        low: smallest value; with two whole numbers only whole numbers are tried.
        high: largest value.
        step: distance between the values tried.
        log: sample uniformly in the logarithm, as suits learning rates.
        choices: list of values.
    """

    low: StrictInt | Number | None = None
    high: StrictInt | Number | None = None
    step: Annotated[StrictInt | Number, Field(gt=0)] | None = None
    log: bool = False
    choices: tuple[StrictInt | Number | bool | str, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        given = {"choices": value} if isinstance(value, list) else value
        if isinstance(given, dict) and isinstance(given.get("choices"), list):
            return {**given, "choices": [_read(v) for v in given["choices"]]}
        return given

    @model_validator(mode="after")
    def _check(self) -> Dimension:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("choices and low, high, step, log exclude each other: give one")
            if len(set(map(repr, self.choices))) < 2:
                raise ValueError(f"choices: at least two different values are required, received {list(self.choices)}")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: low must be above 0, received {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other: give one")
        if self.whole and isinstance(self.step, float):
            raise ValueError(f"step: must be an integer like low and high, received {self.step}")
        return self

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest value, both int for a range of whole numbers. Undefined for choices."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high

    @property
    def whole(self) -> bool:
        """Whether the dimension is a range of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Returns whether a value is in the dimension."""
        if self.choices is not None:
            return value in self.choices
        low, high = self.range
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


class TuneConfig(Section):
    """The hyperparameter search. Each trainer is tuned separately and then trained with the best values.

    Attributes:
        space: hyperparameter to values: `learning_rate`, `batch_size`, `epochs`, `optimizer`, `schedule`, `warmup_steps`,
            `weight_decay`, `clip_norm`, `label_smoothing`, `accumulate_steps` or `model_parameters.NAME`; of boosted trees
            `trees.` with `learning_rate`, `rounds`, `leaves`, `depth`, `min_leaf_rows`, `row_share`, `feature_share`, `l1` or
            `l2`. Each trainer searches its own.
        trials: combinations to try, including failed and pruned ones.
        parallel: trials at the same time, each in a process of its own with all devices.
        metric: metric of the eval split, in the trial's best epoch; `val_auc` for binary and multilabel tasks, `val_mae` for
            regression and multioutput.
        sampler: `tpe` learns from earlier trials, `random` does not.
        pruner: `median` ends a trial that is worse than the median of earlier trials at the same epoch; `null` disables
            pruning.
        minutes: minutes after which no new trial starts.
        seed: seed of the sampler; with `parallel` above 1 the order in which trials end also matters.
    """

    space: dict[str, Dimension]
    trials: Positive = 20
    parallel: Positive = 1
    metric: TuneMetric = "val_loss"
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median"] | None = "median"
    minutes: Annotated[Number, Field(gt=0)] | None = None
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 42

    @model_validator(mode="after")
    def _check(self) -> TuneConfig:
        if not self.space:
            raise ValueError(f"space: is empty; add one of {', '.join(SEARCHABLE)} or {MODEL_PARAMETER}NAME")
        for name, dimension in self.space.items():
            if name.startswith(MODEL_PARAMETER) and len(name) > len(MODEL_PARAMETER):
                continue
            if name not in SEARCHABLE and name not in SEARCHABLE_TREES:
                known = (*SEARCHABLE, *SEARCHABLE_TREES)
                raise ValueError(
                    f"space: {name!r} cannot be searched; allowed: {', '.join(known)}, "
                    f"{MODEL_PARAMETER}NAME.{did_you_mean(name, known)}"
                )
            _fits(name, dimension)
        return self

    def space_of(self, framework: str) -> dict[str, Dimension]:
        """Returns the part of the space that a framework reads; a trainer of the user's may read all."""
        trees = {name: dimension for name, dimension in self.space.items() if name.startswith(TREE_PARAMETER)}
        others = {name: dimension for name, dimension in self.space.items() if name not in trees}
        return trees if framework in TREES else others if framework in NETWORKS else self.space

    def check_frameworks(self, frameworks: Sequence[str]) -> None:
        """Raises ValueError if a framework reads nothing of the space, or no framework reads a part of it."""
        read = {framework: self.space_of(framework) for framework in frameworks}
        for framework, space in read.items():
            if not space:
                its = SEARCHABLE_TREES if framework in TREES else SEARCHABLE
                raise ValueError(
                    f"tune.space: holds nothing of {framework}, received {', '.join(self.space)}; add one of {', '.join(its)}"
                )
        for name in self.space:
            if not any(name in space for space in read.values()):
                wanted = "lightgbm" if name.startswith(TREE_PARAMETER) else "tensorflow or pytorch"
                raise ValueError(f"tune.space: {name!r} is read by no framework of the run; leave it out, or train {wanted}")

    def check_read(self, boosting: Collection[bool]) -> None:
        """Raises UserError if no trainer of the run reads a part of the space; `boosting`: whether each boosts trees."""
        for name in self.space:
            if not name.startswith(MODEL_PARAMETER) and name.startswith(TREE_PARAMETER) not in boosting:
                raise UserError(f"tune.space: {name!r} is read by no trainer of the run; leave it out")

    def check_combinations(self, hyperparameters: Section) -> None:
        """Raises ValueError if values of the space exclude each other or the config's own hyperparameters."""
        fixed = hyperparameters.model_dump(exclude_unset=True)
        choices = {name: self.space[name].choices for name in ("optimizer", "schedule") if name in self.space}
        numbers = {name: 1 for name in ("warmup_steps", "weight_decay") if name in self.space}
        for values in itertools.product(*(found or () for found in choices.values())):
            tried = dict(zip(choices, values, strict=True))
            try:
                type(hyperparameters).model_validate({**fixed, **numbers, **tried})
            except ValidationError as error:
                found = "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
                raise ValueError(f"tune.space: {found}") from None

    def batch_size_not_shared_by(self, workers: int) -> int | None:
        """Returns a batch size in the space that is not divisible by the number of workers, or None."""
        dimension = self.space.get("batch_size")
        if dimension is None:
            return None
        if dimension.choices is not None:
            values = [int(v) for v in dimension.choices]
        else:
            low = int(dimension.low or 1)
            values = [low, low + int(dimension.step or 1)]
        return next((v for v in values if v % workers), None)


class TuningSettings(TuneConfig):
    """The settings of the tuning stage: the config's `tune`, and the version of Switchyard."""

    version: str = ""


def _read(value: Any) -> Any:
    # PyYAML parses 1e-3 as a string.
    return float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) else value


def _whole(value: float) -> bool:
    return isinstance(value, int) and value <= LARGEST


def _fits(name: str, dimension: Dimension) -> None:
    kind = {**SEARCHABLE, **SEARCHABLE_TREES}[name]
    values = dimension.choices if dimension.choices is not None else (dimension.low, dimension.high)
    if isinstance(kind, tuple):
        if dimension.choices is None or not set(values) <= set(kind):
            raise ValueError(f"space.{name}: must be choices of {', '.join(kind)}; received {list(values)}")
        return
    for value in values:
        number = None if isinstance(value, bool | str) else value
        if not number or number <= 0 or (kind == "whole" and not _whole(number)) or (kind == "share" and number >= 1):
            wanted = {"whole": f"whole numbers up to {LARGEST}", "share": "numbers below 1"}.get(kind, "numbers")
            raise ValueError(f"space.{name}: must be {wanted}, above 0; received {list(values)}")
        if (kind == "part" and number > 1) or (name == f"{TREE_PARAMETER}leaves" and not 2 <= number <= MOST_LEAVES):
            wanted = "numbers above 0, up to 1" if kind == "part" else f"whole numbers from 2 to {MOST_LEAVES}"
            raise ValueError(f"space.{name}: must be {wanted}; received {list(values)}")
