"""Trials as trainings: what one of them comes to by itself does not end the search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from switchyard.components.training.workers.training_process import Report, TrainingServer, training_server


class TrialRunner:
    """Runs trials.

    Attributes:
        processes: how many side by side.
    """

    def __init__(self, server: TrainingServer, processes: int, log: IO[bytes]) -> None:
        self.processes = processes
        self._server, self._log = server, log

    def run(self, job: Mapping[str, Any], report: Report) -> dict[str, Any] | None:
        """Runs a trial to its end; returns its TrainResult as a dict, None when it was pruned.

        Raises:
            UserError: the user's code or settings are wrong: no other trial will do better.
            TrainingError: this trial failed: it diverged, crashed or ran out of memory.
            StageError: the process that starts trials is gone.
        """
        return self._server.train(job, report, trial_log=self._log)


@contextmanager
def trial_runner(processes: int, framework: str, log: Path) -> Iterator[TrialRunner]:
    """Yields a runner for so many trials at a time of a framework's; what they print goes to `log`."""
    with log.open("ab") as output, training_server(framework, log) as server:
        yield TrialRunner(server, processes, output)
