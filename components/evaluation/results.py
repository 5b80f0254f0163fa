"""The result of an evaluation, stored in `metrics.json` and read by the CLI, the registry and reports."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from switchyard.components.data.summary import TEST
from switchyard.components.metrics import DIRECTION, PRIMARY, base, direction, names

FILE = "metrics.json"
CANDIDATE, CHAMPION = "candidate", "champion"
Plots = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class Comparison:
    """A comparison of two models on the same rows.

    Attributes:
        model, other: names of the models.
        metric: metric of the comparison.
        difference: difference in the metric's better direction: above 0, `model` is better.
        low, high: two-sided 95 % interval of the difference.
        probability: share of bootstrap replicates in which `model` is better, ties counting half.
        on: description of the rows; empty for all rows.
    """

    model: str
    other: str
    metric: str
    difference: float
    low: float | None
    high: float | None
    probability: float | None
    on: str = ""

    def sentence(self) -> str:
        """Returns the comparison in one line."""
        sure = "" if self.probability is None else f", better with a probability of {self.probability:.1%}"
        between = "" if self.low is None or self.high is None else f" (95 % interval {self.low:+.4f} to {self.high:+.4f})"
        on = f" on {self.on}" if self.on else ""
        if math.isnan(self.difference):
            return f"{self.model} against {self.other}{on}: {self.metric} is not defined for both"
        return f"{self.model} against {self.other}{on}: {self.metric} {self.difference:+.4f}{between}{sure}"


@dataclass(frozen=True)
class ModelResult:
    """The evaluation of one model.

    Attributes:
        name: the trainer's name, or `champion`.
        role: candidate or champion.
        framework: the trainer's name.
        uri: URI of the model artifact.
        version: version of a champion; None for candidates.
        metrics: metric -> value on the whole held-out split, by TFMA; for a champion on the rows that it can predict. Undefined
            metrics (the AUC of one class) are absent.
        intervals: metric -> two-sided 95 % interval.
        slices: slice (`feature=value`, several joined by `, `) -> metric -> value.
        plots: `confusion` (rows of threshold, tp, fp, tn, fn), `calibration` (rows of prediction, label, count),
            `multiclass` (rows of actual, predicted, count), `fit` (rows of label, prediction),
            `quantiles` (rows of quantile, share of labels up to it), `ranks` (rows of rank, mean relevance there, and in the best
            order).
        passed: whether all thresholds hold.
        blessed: whether the model is eligible for promotion and the best of the eligible candidates.
        failures: failed checks, one sentence each.
        notes: further messages for the user.
    """

    name: str
    role: str
    framework: str
    uri: str
    version: str | None
    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    slices: dict[str, dict[str, float]]
    plots: Plots
    passed: bool = False
    blessed: bool = False
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        task: name of a task.
        metric: metric that decides between models.
        split: evaluated split: `test` if there is one, else `eval`.
        rows: number of rows of the split.
        best: name of the blessed candidate, else of the best one.
        models: name -> result; the champion is last.
        comparisons: the best candidate against every other, and each candidate against the champion.
        thresholds: metric -> bounds.
        champion: version of the compared champion; None if there was none to compare with.
        compared_rows: number of rows that the champion was measured on; 0 without a comparison.
        not_compared: reason why there is no comparison with a champion; empty if there is one.
        standing_champion: champion's version in the registry at evaluation time, even if it does not fit the data; None if there
            was none or the registry was unreachable. Only this version may be replaced.
        notes: messages on the comparison with the champion, and the like.
        positive_class: positive class of a binary task as text; None for other tasks.
        positive_by: reason for the choice of the positive class.
        champion_origin: the other data set that the champion was trained on, in one line; empty if it is this one or unknown.
        higher_is_better: whether higher values of `metric` are better.
    """

    task: str
    metric: str
    split: str
    rows: int
    best: str
    models: dict[str, ModelResult]
    comparisons: list[Comparison]
    thresholds: dict[str, dict[str, Any]]
    champion: str | None
    compared_rows: int
    not_compared: str
    standing_champion: str | None
    notes: list[str]
    positive_class: str | None = None
    positive_by: str = ""
    champion_origin: str = ""
    higher_is_better: bool = True

    @property
    def slice_metric(self) -> str:
        """The metric by which slices are compared: the deciding one, or the task's own if no slice has that of the user."""
        measured = base(self.metric) in DIRECTION or any(self.metric in values for values in self.candidate.slices.values())
        return self.metric if measured else PRIMARY.get(self.task, self.metric)

    def worst_first(self, model: ModelResult) -> list[tuple[str, dict[str, float]]]:
        """Returns a model's slices and their metrics, the worst by `slice_metric` first, those without it last."""
        metric = self.slice_metric
        sign = 1 if (direction(metric) > 0 if base(metric) in DIRECTION else self.higher_is_better) else -1

        def rank(found: tuple[str, dict[str, float]]) -> float:
            value = found[1].get(metric, math.nan)
            return math.inf if math.isnan(value) else sign * value

        return sorted(model.slices.items(), key=rank)

    @property
    def positive(self) -> str:
        """The positive class in one line; empty if there is none."""
        return f"positive class: {self.positive_class} ({self.positive_by})" if self.positive_class is not None else ""

    @property
    def candidate(self) -> ModelResult:
        """The best candidate."""
        return self.models[self.best]

    @property
    def metrics(self) -> dict[str, float]:
        """The best candidate's metrics."""
        return self.candidate.metrics

    @property
    def blessed(self) -> bool:
        """Whether the best candidate is blessed."""
        return self.candidate.blessed

    @property
    def failures(self) -> list[str]:
        """The best candidate's failed checks."""
        return self.candidate.failures

    def lines(self) -> list[str]:
        """Returns the lines below a table of models: positive class, split, comparisons and rows that were not compared."""
        optimistic = "" if self.split == TEST else ", which training also uses for validation: the metrics are optimistic"
        found = [
            *([self.positive] if self.positive else []),
            f"figures on {self.rows:,} rows of the split {self.split!r}{optimistic}",
            *(c.sentence() for c in self.comparisons if c.model == self.best),
        ]
        if self.not_compared:
            found.append(f"not compared with a champion: {self.not_compared}")
        elif self.compared_rows < self.rows:
            share = f"{self.compared_rows:,} of {self.rows:,} rows ({self.compared_rows / self.rows:.1%})"
            found.append(f"compared with champion version {self.champion} on the {share} that it can predict")
        if self.champion_origin:
            found.append(self.champion_origin)
        return found

    def save(self, folder: str) -> None:
        """Writes the result to `metrics.json` in a folder."""
        content = dataclasses.asdict(self)
        for model in content["models"].values():
            model["metrics"] = with_blanks(model["metrics"], self.task)
            model["slices"] = {k: with_blanks(v, self.task) for k, v in model["slices"].items()}
        for comparison in content["comparisons"]:
            comparison["difference"] = None if math.isnan(comparison["difference"]) else comparison["difference"]
        with open(os.path.join(folder, FILE), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, allow_nan=False)

    @classmethod
    def load(cls, folder: str) -> Evaluation:
        """Reads the result from a folder."""
        with open(os.path.join(folder, FILE), encoding="utf-8") as file:
            loaded = json.load(file)
        for model in loaded["models"].values():
            model["metrics"] = _present(model["metrics"])
            model["slices"] = {k: _present(v) for k, v in model["slices"].items()}
        for comparison in loaded["comparisons"]:
            comparison["difference"] = math.nan if comparison["difference"] is None else comparison["difference"]
        loaded["models"] = {name: ModelResult(**m) for name, m in loaded["models"].items()}
        loaded["comparisons"] = [Comparison(**c) for c in loaded["comparisons"]]
        return cls(**loaded)


def with_blanks(metrics: Mapping[str, float], task: str) -> dict[str, float | None]:
    """Returns metrics for files and `--json` output: null for undefined metrics of the task."""
    return {**dict.fromkeys(names(task)), **metrics}


def _present(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if value is not None}


def verdict_of(model: ModelResult) -> str:
    """Returns a model's verdict in a few words."""
    if model.role == CHAMPION:
        return "current champion"
    return "blessed" if model.blessed else "passed, not blessed" if model.passed else "not passed"
