"""Dispatches the messages of training workers in the stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from switchyard.components.errors import Failure
from switchyard.components.progress import say, warn
from switchyard.components.training.contract import Report, TrainResult
from switchyard.components.training.workers.messages import read_message


class Listener:
    """A dispatcher of the workers' output lines: reports go to `report`, other lines to `log`.

    Attributes:
        result: result of the training; None until the workers finish.
    """

    def __init__(self, report: Report, log: Callable[[str], object]) -> None:
        self._report, self._log = report, log
        self._steps = -1
        self.result: TrainResult | None = None

    def hear(self, line: str, source: str = "") -> None:
        """Dispatches one line; `source` is its prefix in the log.

        Raises:
            UserError, TrainingError: a worker reports this failure.
        """
        said = read_message(line)
        if said is None:
            self._log(source + line)
        elif "metrics" in said:
            if said["step"] <= self._steps:
                warn("a worker was lost: training went on from the last checkpoint")
            else:
                self._steps = said["step"]
                self._report(said["step"], said["metrics"])
        elif "said" in said:
            say(said["said"])
        elif "done" in said:
            self.result = train_result(said["done"])
        else:
            raise Failure(**said["failed"]).error()


def train_result(found: Mapping[str, Any]) -> TrainResult:
    """Returns a TrainResult from plain data."""
    return TrainResult(**{**found, "history": tuple(found["history"])})
