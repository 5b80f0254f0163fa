"""The stage's side of `training_server`: where a model is trained, or a trainer looked at, and what comes back."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self

from switchyard.components.errors import Failure, StageError, TrainingError, last_line
from switchyard.components.process import interpreter, variables
from switchyard.components.progress import say
from switchyard.components.training.trainers import TRAINERS
from switchyard.components.training.workers.messages import GO, PRUNE
from switchyard.components.user_code.loading import is_file

# Trained in the stage's process, where its framework is imported already.
STAGES_OWN = "tensorflow"
# Takes what a training reports once an epoch (steps so far, metrics); True ends it.
Report = Callable[[int, Mapping[str, float]], bool]


class TrainingServer:
    """Trains jobs, as many side by side as are asked for.

    Args:
        address: of its socket.
        log: what it printed itself.
    """

    def __init__(self, address: str, log: Path | None) -> None:
        self._address, self._log = address, log

    def train(self, job: Mapping[str, Any], report: Report, *, trial_log: IO[Any] | None = None) -> dict[str, Any] | None:
        """Trains a `TrainingJob` (as plain data); returns its TrainResult as a dict, None when `report` ended it.

        Args:
            job: see TrainingJob.
            report: see there.
            trial_log: of one training of many, where it prints to; it says nothing to the user. Else this process's output.

        Raises:
            UserError: the user's code or settings are wrong.
            TrainingError: it diverged, or ran out of memory; one of many: also whatever else it ended by.
            StageError: it crashed, or was killed.
        """
        order = {"job": dict(job), "trial": trial_log is not None}
        found: dict[str, Any] | None = self._ask(order, report, trial_log.fileno() if trial_log else 2)
        return found

    def check(self, settings: Mapping[str, Any]) -> str:
        """Returns the trainer's name, see `check_trainer`. Raises as `train`."""
        return str(self._ask({"check": dict(settings), "trial": False}, lambda *_: False, 2))

    def _ask(self, order: Mapping[str, Any], report: Report, output: int) -> Any:
        given = {**order, "environment": dict(os.environ), "path": sys.path}
        # Both are closed at once: the end of the connection ends what is trained.
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as lines:
            try:
                with _short(self._address) as address:
                    connection.connect(address)
                socket.send_fds(connection, [b"j"], [output])
                connection.sendall((json.dumps(given) + "\n").encode())
            except OSError as error:
                raise self._gone() from error
            while True:
                said = self._said(lines)
                if "metrics" in said:
                    answer = PRUNE if report(said["step"], said["metrics"]) else GO
                    with suppress(OSError):  # it has died: what of, comes next
                        connection.sendall(f"{answer}\n".encode())
                elif "said" in said:
                    say(said["said"])
                elif "failed" in said:
                    raise Failure(**said["failed"]).error()
                elif "died" in said:
                    raise (TrainingError if order["trial"] else StageError)(said["died"])
                else:
                    return said.get("done")

    def _said(self, lines: IO[bytes]) -> dict[str, Any]:
        try:
            line = lines.readline()
        except OSError as error:
            raise self._gone() from error
        if not line:
            raise self._gone()
        said: dict[str, Any] = json.loads(line)
        return said

    def _gone(self) -> StageError:
        why = last_line(self._log).rstrip(".") if self._log else ""
        where = f" Log: {self._log}" if self._log else ""
        return StageError(f"the process that trains has ended: {why or 'it left no word'}.{where}")


@contextmanager
def training_server(framework: str, log: Path | None = None) -> Iterator[TrainingServer]:
    """Yields a server for a framework's trainings: one that runs already, else one of its own, which ends here.

    Args:
        framework: as the config has it.
        log: file for what a server of its own prints; default: this process's output.
    """
    running = json.loads(os.environ.get(variables.TRAINING_SERVERS, "{}")).get(framework)
    if running:
        yield TrainingServer(running["address"], Path(running["log"]))
        return
    with tempfile.TemporaryDirectory(prefix="switchyard-") as folder:
        process, address = start_server(framework, Path(folder), log)
        try:
            yield TrainingServer(address, log)
        finally:
            _stop(process)


def start_server(framework: str, folder: Path, log: Path | None) -> tuple[subprocess.Popen[bytes], str]:
    """Starts a server; returns its process, which ends with its standard input, and the address of its socket.

    Args:
        framework: as the config has it.
        folder: of the socket.
        log: see `training_server`.
    """
    address = str(folder / "trainings")
    with socket.socket(socket.AF_UNIX) as listening:
        with _short(address) as name:
            listening.bind(name)
        listening.listen()
        output: Any = log.open("ab") if log else 2
        try:
            process = interpreter.start(
                "switchyard.components.training.workers.training_server",
                [str(listening.fileno()), *_modules(framework)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=(listening.fileno(),),
            )
        finally:
            if log:
                output.close()
    return process, address


class TrainingServers:
    """Servers that import their frameworks ahead of the stages that use them; those that run already are used.

    Attributes:
        environment: variables of those stages.
    """

    def __init__(self, frameworks: Sequence[str], logs: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="switchyard-", ignore_cleanup_errors=True)
        self._processes = []
        running = json.loads(os.environ.get(variables.TRAINING_SERVERS, "{}"))
        found = {f: running[f] for f in frameworks if f in running}
        for number, framework in enumerate(f for f in frameworks if f != STAGES_OWN and f not in found):
            log, folder = logs / f"trainings-{number}.log", Path(self._folder.name) / str(number)
            folder.mkdir()
            process, address = start_server(framework, folder, log)
            self._processes.append(process)
            found[framework] = {"address": address, "log": str(log)}
        self.environment = {variables.TRAINING_SERVERS: json.dumps(found)}

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends them, and what they still train."""
        for process in self._processes:
            _stop(process)
        self._processes = []
        self._folder.cleanup()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a server, and what it still trains."""
    process.terminate()
    process.communicate()


@contextmanager
def _short(address: str) -> Iterator[str]:
    """Yields a name of a socket that is short enough, however deep its folder lies."""
    folder = os.open(os.path.dirname(address), os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(address)}"
    finally:
        os.close(folder)


def _modules(framework: str) -> list[str]:
    """Returns what is imported ahead of the trainings; a trainer of the user's own is imported by each."""
    return [] if is_file(framework) or framework not in TRAINERS else [TRAINERS[framework].partition(":")[0]]
