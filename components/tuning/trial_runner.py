"""The stage's side of `trial_process`: several of them, one trial at a time in each."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from switchyard.components.errors import Failure, StageError, last_line
from switchyard.components.process import interpreter
from switchyard.components.tuning.trial_process import GO, PRUNE

# Takes what a trial reports once an epoch (steps so far, metrics); True ends the trial.
Report = Callable[[int, Mapping[str, float]], bool]


class TrialRunner:
    """Runs trials, as many at a time as there are processes.

    Attributes:
        processes: how many there are.
    """

    def __init__(self, processes: Sequence[subprocess.Popen[str]], log: Path) -> None:
        self.processes = len(processes)
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        for process in processes:
            self._free.put(process)
        self._log = log

    def run(self, job: Mapping[str, Any], report: Report) -> dict[str, Any] | None:
        """Runs a trial to its end; returns its TrainResult as a dict, None when it was pruned.

        Raises:
            UserError: the user's code or settings are wrong: no other trial will do better.
            TrainingError: this trial failed: it diverged, crashed or ran out of memory.
            StageError: the process that starts trials is gone.
        """
        process = self._free.get()
        try:
            return self._run(process, job, report)
        finally:
            self._free.put(process)

    def _run(self, process: subprocess.Popen[str], job: Mapping[str, Any], report: Report) -> dict[str, Any] | None:
        self._say(process, json.dumps(job))
        while True:
            said = self._drain_logs(process)
            if "metrics" in said:
                self._say(process, self._answer(process, said, report))
            elif "done" in said:
                result: dict[str, Any] = said["done"]
                return result
            elif "pruned" in said:
                return None
            elif "failed" in said:
                raise Failure(**said["failed"]).error()

    def _answer(self, process: subprocess.Popen[str], said: Mapping[str, Any], report: Report) -> str:
        try:
            return PRUNE if report(said["step"], said["metrics"]) else GO
        except BaseException:
            # It waits for an answer, and the process for the next trial.
            self._say(process, PRUNE)
            while not {"pruned", "failed"} & self._drain_logs(process).keys():
                pass
            raise

    def _say(self, process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._gone(process) from None

    def _drain_logs(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise self._gone(process)
        said: dict[str, Any] = json.loads(line)
        return said

    def _gone(self, process: subprocess.Popen[str]) -> StageError:
        why = last_line(self._log).rstrip(".") or "it left no word"
        return StageError(f"the process that starts trials ended with exit code {process.wait()}: {why}. Log: {self._log}")


@contextmanager
def trial_runner(processes: int, trainer_module: str, log: Path) -> Iterator[TrialRunner]:
    """Yields a runner with so many processes; what they print goes to `log`. They end with it, and with this process."""
    pipe = subprocess.PIPE
    with log.open("ab") as output:
        started = [
            interpreter.start(
                "switchyard.components.tuning.trial_process", [trainer_module], stdin=pipe, stdout=pipe, stderr=output, text=True
            )
            for _ in range(processes)
        ]
    try:
        yield TrialRunner(started, log)
    finally:
        for process in started:
            # The end of its input ends it, and a trial that still runs.
            process.communicate()
