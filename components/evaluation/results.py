"""What an evaluation found, as one plain object, `metrics.json`: what the CLI, the registry and reports read."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from switchyard.components.data.summary import TEST
from switchyard.components.metrics import names

FILE = "metrics.json"
CANDIDATE, CHAMPION = "candidate", "champion"
Plots = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class Comparison:
    """One model against another on the same rows.

    Attributes:
        model, other: their names.
        metric: what they are compared by.
        difference: in the direction that is better: above 0, `model` is better.
        low, high: two-sided 95 % interval of the difference.
        probability: share of the bootstrap's replicates in which `model` is better.
        on: which rows, in words; empty: all of them.
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
        """Returns it in one line."""
        sure = "" if self.probability is None else f", better with a probability of {self.probability:.1%}"
        between = "" if self.low is None or self.high is None else f" (95 % interval {self.low:+.4f} to {self.high:+.4f})"
        on = f" on {self.on}" if self.on else ""
        if math.isnan(self.difference):
            return f"{self.model} against {self.other}{on}: {self.metric} does not exist for both of them"
        return f"{self.model} against {self.other}{on}: {self.metric} {self.difference:+.4f}{between}{sure}"


@dataclass(frozen=True)
class ModelResult:
    """One model's evaluation.

    Attributes:
        name: the trainer's, or `champion`.
        role: candidate or champion.
        framework: the trainer's name.
        uri: the model artifact that it came from.
        version: of a champion.
        metrics: metric -> value on the whole held-out split, by TFMA; of a champion on the rows that it can judge. What does not
            exist (the AUC of one class) is not there.
        intervals: metric -> two-sided 95 % interval.
        slices: slice (`feature=value`, several joined by `, `) -> metric -> value.
        plots: `confusion` (rows of threshold, tp, fp, tn, fn), `calibration` (rows of prediction, label, count),
            `multiclass` (rows of actual, predicted, count), `fit` (rows of label, prediction).
        passed: all thresholds hold.
        blessed: passed, surely better than the champion, and the best of those.
        failures: one sentence for each thing that does not hold.
        notes: what else a person should know.
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
    """What an evaluation found.

    Attributes:
        task: binary, multiclass or regression.
        metric: what decides between models.
        split: that they were evaluated on: `test`, or else `eval`.
        rows: of it.
        best: name of the candidate that is blessed, or else comes first.
        models: name -> result; the champion last.
        comparisons: the best candidate against each other, and each against the champion.
        thresholds: metric -> bounds.
        champion: version compared with; None: there was none to compare with.
        compared_rows: on which the champion was measured; 0: on none.
        not_compared: why there is no comparison with a champion; empty: there is one.
        standing_champion: the registry's version when this was evaluated, also one that does not fit the data; None: there
            was none, or the registry was away. Only that one may be replaced.
        notes: why not, and the like.
        positive_class: of a binary task, which its metrics are about; as text.
        positive_by: why it is that one.
        champion_origin: which other data set the standing champion was trained on, in one line; empty: it was this one.
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

    @property
    def positive(self) -> str:
        """Returns the positive class in one line; empty where there is none."""
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
        """A candidate is blessed."""
        return self.candidate.blessed

    @property
    def failures(self) -> list[str]:
        """What is wrong with the best candidate."""
        return self.candidate.failures

    def lines(self) -> list[str]:
        """Returns what stands below a table of the models: how they differ, on which rows, and what was not compared."""
        optimistic = "" if self.split == TEST else ", which training looks at too: the figures are optimistic"
        found = [
            *([self.positive] if self.positive else []),
            f"figures on {self.rows:,} rows of the split {self.split!r}{optimistic}",
            *(c.sentence() for c in self.comparisons if c.model == self.best),
        ]
        if self.not_compared:
            found.append(f"compared with no champion: {self.not_compared}")
        elif self.compared_rows < self.rows:
            share = f"{self.compared_rows:,} of {self.rows:,} rows ({self.compared_rows / self.rows:.1%})"
            found.append(f"compared with champion version {self.champion} on the {share} that it can judge")
        if self.champion_origin:
            found.append(self.champion_origin)
        return found

    def save(self, folder: str) -> None:
        """Writes it."""
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
        """Reads it."""
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
    """Returns metrics as a file or `--json` shows them: null where a metric of the task does not exist."""
    return {**dict.fromkeys(names(task)), **metrics}


def _present(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if value is not None}


def verdict_of(model: ModelResult) -> str:
    """Returns a model's verdict in two words."""
    if model.role == CHAMPION:
        return "champion until now"
    return "blessed" if model.blessed else "passed, not blessed" if model.passed else "not passed"
