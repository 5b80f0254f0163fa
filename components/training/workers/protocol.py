"""The protocol between training workers and the stage: marked JSON lines among the output of libraries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from switchyard.components.errors import Failure
from switchyard.components.progress import say, warn
from switchyard.components.training.contract import Report, TrainResult

# Replies to a training's report.
GO, PRUNE = "go", "prune"
_MARK = "switchyard-worker "


def message(content: Mapping[str, Any]) -> str:
    """Returns the line (without its end) for `{step, metrics}`, `{log}`, `{done}` or `{failed}` (a `Failure`)."""
    return _MARK + json.dumps(content)


def read_message(line: str) -> dict[str, Any] | None:
    """Returns the message in a line, or None if it has none."""
    _, mark, rest = line.partition(_MARK)
    if not mark:
        return None
    try:
        content: dict[str, Any] = json.loads(rest)
    except ValueError:
        return None
    return content


class Listener:
    """A dispatcher of the workers' output lines: reports go to `report`, other lines to `log`.

    Attributes:
        result: result of the training; None until the workers finish.
    """

    def __init__(self, report: Report, log: Callable[[str], object]) -> None:
        self._report, self._log = report, log
        self._steps = -1
        self.result: TrainResult | None = None

    def dispatch(self, line: str, source: str = "") -> None:
        """Dispatches one line; `source` is its prefix in the log.

        Raises:
            UserError, TrainingError: a worker reports this failure.
        """
        content = read_message(line)
        if content is None:
            self._log(source + line)
        elif "metrics" in content:
            if content["step"] <= self._steps:
                warn("a worker was lost: training resumed from the last checkpoint")
            else:
                self._steps = content["step"]
                self._report(content["step"], content["metrics"])
        elif "log" in content:
            say(content["log"])
        elif "done" in content:
            self.result = train_result(content["done"])
        else:
            raise Failure(**content["failed"]).error()


def train_result(found: Mapping[str, Any]) -> TrainResult:
    """Returns a TrainResult from plain data."""
    return TrainResult(**{**found, "history": tuple(found["history"])})
