"""Runs trials as trainings in a training server, where the failure of one trial does not end the search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from switchyard.components.training.job import TrainingJob
from switchyard.components.training.workers.training_process import Report, TrainingServer, training_server


class TrialRunner:
    """A runner of trials.

    Attributes:
        processes: number of parallel trials.
    """

    def __init__(self, server: TrainingServer, processes: int, log: IO[bytes]) -> None:
        self.processes = processes
        self._server, self._log = server, log

    def run(self, job: TrainingJob, report: Report) -> dict[str, Any] | None:
        """Runs a trial; returns its TrainResult as a dict, or None if it was pruned.

        Raises:
            UserError: the user's code or settings are wrong, which affects every trial.
            TrainingError: this trial failed: it diverged, crashed or ran out of memory.
            StageError: the training server has exited.
        """
        return self._server.train(job, report, trial_log=self._log)


@contextmanager
def trial_runner(processes: int, framework: str, log: Path) -> Iterator[TrialRunner]:
    """Yields a runner of parallel trials for a framework; their output is appended to `log`."""
    with log.open("ab") as output, training_server(framework, log) as server:
        yield TrialRunner(server, processes, output)
