"""What the tuning stage leaves: `best.json` for the training stage, `trials.json` for people."""

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
    """One trial.

    Attributes:
        number: from 1, as in its MLflow run's name; a trial that a kill cut off has left a gap.
        state: complete, pruned or failed.
        values: hyperparameter -> what was tried.
        value: the metric in the best epoch (of a pruned one, in its last); None when it failed.
        epochs: finished.
        best_epoch: of a complete one.
        seconds: wall time.
        why: of a failed one.
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
    """A whole search.

    Attributes:
        metric: what it was judged by.
        best: number of the best trial.
        values: its values.
        importance: hyperparameter -> its share of the metric's variance over the complete trials (fANOVA, Hutter et al.
            2014), adding up to 1; empty: too few trials to say.
        trials: all of them, in order.
    """

    metric: str
    best: int
    values: dict[str, Any]
    importance: dict[str, float]
    trials: list[TrialResult]

    @property
    def best_trial(self) -> TrialResult:
        """The trial behind `best`."""
        return next(t for t in self.trials if t.number == self.best)

    def save(self, folder: Path) -> None:
        """Writes both files."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BEST).write_text(json.dumps(self.values, indent=1), encoding="utf-8")
        (folder / TRIALS).write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")
