"""The tuning stage's output: `best.json` for the training stage, `trials.json` for users."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from switchyard.components.training.tuned import BEST

TRIALS, PAGE = "trials.json", "tuning.html"


@dataclass(frozen=True)
class TrialResult:
    """The result of one trial.

    Attributes:
        number: number from 1, as in its MLflow run's name; a trial interrupted by a kill leaves a gap.
        state: `complete`, `pruned` or `failed`.
        values: hyperparameter -> value tried.
        value: metric in the best epoch (in the last epoch of a pruned trial); None if the trial failed.
        epochs: number of completed epochs.
        best_epoch: best epoch of a complete trial.
        seconds: wall time.
        why: reason of a failure.
    """

    number: int
    state: str
    values: dict[str, Any]
    value: float | None
    epochs: int
    best_epoch: int | None
    seconds: float
    why: str


@dataclass(frozen=True)
class TuningResult:
    """The result of a search.

    Attributes:
        metric: metric that the trials are judged by.
        best: number of the best trial.
        values: its values.
        importance: hyperparameter -> share of the metric's variance over the complete trials (fANOVA, Hutter et al. 2014),
            summing to 1; empty with too few trials.
        trials: all finished trials, in order.
    """

    metric: str
    best: int
    values: dict[str, Any]
    importance: dict[str, float]
    trials: list[TrialResult]

    @property
    def best_trial(self) -> TrialResult:
        """The best trial."""
        return next(t for t in self.trials if t.number == self.best)

    def save(self, folder: Path) -> None:
        """Writes `best.json` and `trials.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BEST).write_text(json.dumps(self.values, indent=1), encoding="utf-8")
        (folder / TRIALS).write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")
