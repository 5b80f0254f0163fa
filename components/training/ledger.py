"""Records the epochs of a training, the best epoch and early stopping.

The rules are the same for every trainer. A kill at any moment is safe: the ledger is written after the checkpoint it names.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from switchyard.components.errors import TrainingError, UserError
from switchyard.components.metrics import direction
from switchyard.components.training.contract import TrainResult
from switchyard.components.training.hyperparameters import Hyperparameters

FILE = "ledger.json"
_LAST, _BEST = "last-", "best-"
# Multiple of the uniform prediction's loss: far above the loss of a merely poor model.
_ABSURD = 100


@dataclass
class TrainingLedger:
    """Metrics per epoch, with early stopping on the hyperparameters' `monitor`."""

    folder: Path
    hyperparameters: Hyperparameters
    history: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    best_epoch: int = 0
    stopped: bool = False
    resumed_from_epoch: int = 0

    @classmethod
    def open(cls, folder: Path, hyperparameters: Hyperparameters) -> TrainingLedger:
        """Loads the ledger in `folder`, or creates one."""
        file = folder / FILE
        if not file.exists():
            return cls(folder, hyperparameters)
        ledger = cls(folder, hyperparameters, **json.loads(file.read_text(encoding="utf-8")))
        ledger.resumed_from_epoch = ledger.epochs
        return ledger

    @property
    def epochs(self) -> int:
        """Number of completed epochs."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether training is complete."""
        steps = self.hyperparameters.steps
        return self.stopped or self.epochs >= self.hyperparameters.epochs or (steps is not None and self.steps >= steps)

    def record(self, steps: int, metrics: Mapping[str, float]) -> bool:
        """Records the metrics of an epoch; returns whether it is the best so far.

        Raises:
            TrainingError: `loss` or `val_loss` is not finite.
            UserError: a model with a training of its own does not measure the monitored metric, or one that is no number.
        """
        values = {name: as_number(name, value) for name, value in metrics.items()}
        if self.hyperparameters.monitor not in values:
            raise UserError(
                f"trainer.hyperparameters.early_stopping.metric: {self.hyperparameters.monitor!r} is not measured by the model, "
                f"whose metrics are {', '.join(sorted(values))}; add it to them, or use another one"
            )
        for name in ("loss", "val_loss"):
            check_finite(name, values[name], self.epochs + 1)
        self.history.append(values)
        self.steps = steps
        monitor = self.hyperparameters.monitor
        best = self.history[self.best_epoch - 1][monitor] if self.best_epoch else math.nan
        gain = direction(monitor) * (values[monitor] - best)
        # A metric that is undefined in an epoch, such as the AUC of one class, is worse than any value.
        improved = math.isfinite(values[monitor]) if math.isnan(best) else gain > self.hyperparameters.min_delta
        if improved or not self.best_epoch:
            self.best_epoch = self.epochs
        patience = self.hyperparameters.patience
        self.stopped = patience is not None and self.epochs - self.best_epoch >= patience
        return self.best_epoch == self.epochs

    def last(self, suffix: str) -> Path:
        """Returns the checkpoint file of the last recorded epoch."""
        return self.folder / f"{_LAST}{self.epochs}{suffix}"

    def best(self, suffix: str) -> Path:
        """Returns the checkpoint file of the best epoch."""
        return self.folder / f"{_BEST}{self.best_epoch}{suffix}"

    def save(self) -> None:
        """Writes the ledger atomically, after `last` is written; removes the files of other epochs.

        `best` is a link to `last` in the best epoch.
        """
        if self.best_epoch == self.epochs:
            for file in self.folder.glob(f"{_LAST}{self.epochs}.*"):
                _link(file, self.best(file.name.removeprefix(f"{_LAST}{self.epochs}")))
        state = {k: getattr(self, k) for k in ("history", "steps", "best_epoch", "stopped")}
        temporary = self.folder / f"{FILE}.new"
        temporary.write_text(json.dumps(state), encoding="utf-8")
        os.replace(temporary, self.folder / FILE)
        kept = {f"{_LAST}{self.epochs}", f"{_BEST}{self.best_epoch}"}
        for file in (*self.folder.glob(f"{_LAST}*"), *self.folder.glob(f"{_BEST}*")):
            if file.name.partition(".")[0] not in kept:
                file.unlink()

    def copy(self) -> TrainingLedger:
        """Returns a copy that a thread may save while this one records the next epoch."""
        return replace(self, history=list(self.history))

    def result(self, *, parameters: int, device: str, workers: int = 1) -> TrainResult:
        """Returns the trainer's result."""
        return TrainResult(
            epochs=self.epochs,
            steps=self.steps,
            best_epoch=self.best_epoch,
            metrics=self.history[self.best_epoch - 1],
            history=tuple(self.history),
            resumed_from_epoch=self.resumed_from_epoch,
            parameters=parameters,
            device=device,
            workers=workers,
        )


def _link(file: Path, target: Path) -> None:
    temporary = target.with_name(f"new_{target.name}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(file, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, temporary)
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # replacing a link to the same file does nothing


def as_number(name: str, value: Any) -> float:
    """Returns the value of a metric; raises UserError if it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(
            f"trainer.model: the metric {name!r} must be one number, received {value!r}"[:300] + "; average it"
        ) from None


def diverged(loss: str, outputs: int, metrics: Mapping[str, float]) -> str:
    """Returns the reason to treat training as diverged although its losses are finite; empty otherwise.

    Applies only to the cross-entropy, which has a scale: the logarithm of the number of classes, the loss of the uniform
    prediction. Both losses must be large, as one extreme row inflates only one of them.
    """
    nothing = math.log(max(2, outputs))
    if loss != "cross_entropy" or min(metrics["loss"], metrics["val_loss"]) <= _ABSURD * nothing:
        return ""
    return (
        f"training diverged: in its best epoch loss is {metrics['loss']:.3g} and val_loss {metrics['val_loss']:.3g}, while "
        f"equal probabilities for all classes give {nothing:.2g}; try a lower trainer.hyperparameters.learning_rate"
    )


def check_finite(name: str, value: float, epoch: int) -> None:
    """Raises TrainingError when a loss is NaN or infinite."""
    if not math.isfinite(value):
        raise TrainingError(
            f"training diverged: {name} is {value} in epoch {epoch}. Try a lower trainer.hyperparameters.learning_rate, "
            "check the data for extreme values, or scale the features in preprocessing."
        )
