"""The client of `training_server`: submits trainings and checks of trainers, and receives their results."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from switchyard.components.errors import Failure, StageError, TrainingError, last_line
from switchyard.components.process import interpreter, unix_socket, variables, warm
from switchyard.components.process.temporary import TemporaryFolder, temporary_folder
from switchyard.components.progress import say
from switchyard.components.training.trainers import TRAINERS
from switchyard.components.training.workers.module_server import send_order
from switchyard.components.training.workers.protocol import GO, PRUNE
from switchyard.components.user_code.loading import is_file

if TYPE_CHECKING:
    import numpy as np

    from switchyard.components.training.contract import Predictor
    from switchyard.components.training.job import TrainingJob
    from switchyard.components.training.settings import TrainerSettings

# This framework trains in the stage's process, which has already imported it.
STAGES_OWN = "tensorflow"
# Receives a training's report once per epoch (steps so far, metrics); True prunes the training.
Report = Callable[[int, Mapping[str, float]], bool]


class TrainingServer:
    """A client of a training server, which runs any number of jobs in parallel.

    Args:
        address: address of the server's socket.
        log: file with the server's own output, if any.
    """

    def __init__(self, address: str, log: Path | None) -> None:
        self._address, self._log = address, log

    def train(self, job: TrainingJob, report: Report, *, trial_log: IO[Any] | None = None) -> dict[str, Any] | None:
        """Trains; returns the TrainResult as a dict, or None if `report` pruned it.

        Args:
            job: the training.
            report: see `Report`.
            trial_log: output file of a trial, which prints nothing to the terminal. Default: this process's output.

        Raises:
            UserError: the user's code or settings are wrong.
            TrainingError: it diverged or ran out of memory; for a trial also any other failure.
            StageError: it crashed or was killed.
        """
        order = {"job": job.model_dump(mode="json"), "trial": trial_log is not None}
        found: dict[str, Any] | None = self._request(order, report, trial_log.fileno() if trial_log else 2)
        return found

    def check(self, settings: TrainerSettings) -> str:
        """Returns the trainer's name, see `check_trainer`. Raises the same errors as `train`."""
        return str(self._request({"check": settings.model_dump(mode="json"), "trial": False}, lambda *_: False, 2))

    def predictor(self, bundle: Path, predictor: str, export_dir: Path) -> Predictor:
        """Loads a trainer's export in a job, which ends with this process or when the predictor is no longer used.

        Args:
            bundle: the bundle's folder.
            predictor: see `load_predictor_class`.
            export_dir: see `Trainer.load_predictor`.

        Raises:
            UserError: the export is not a valid one; also by the predictor, as StageError and any failure of a prediction.
        """
        from switchyard.components.training.workers import arrays  # imports NumPy, which the runner does not need

        order = {"bundle": str(bundle), "predictor": predictor, "export": str(export_dir)}
        connection = socket.socket(socket.AF_UNIX)
        lines, lock = connection.makefile("rb"), threading.Lock()
        self._submit(connection, {"predict": order, "trial": False}, 2)
        self._result(self._read(lines))

        def predict(features: Mapping[str, np.ndarray]) -> np.ndarray:
            with lock:
                with suppress(OSError):  # the job has died; the next line gives the reason
                    arrays.send(connection, features)
                content = self._line(lines)
                self._result(json.loads(content))
                return arrays.receive(content, lines)["scores"]

        return predict

    def _submit(self, connection: socket.socket, order: Mapping[str, Any], output: int) -> None:
        try:
            send_order(connection, self._address, {**order, "environment": dict(os.environ), "path": sys.path}, [output])
        except OSError as error:
            raise self._server_error() from error

    @staticmethod
    def _result(content: Mapping[str, Any], death: type[TrainingError | StageError] = StageError) -> Any:
        if "failed" in content:
            raise Failure(**content["failed"]).error()
        if "died" in content:
            raise death(content["died"])
        return content.get("done")

    def _request(self, order: Mapping[str, Any], report: Report, output: int) -> Any:
        # Both are closed together: closing the connection ends the job.
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as lines:
            self._submit(connection, order, output)
            while True:
                content = self._read(lines)
                if "metrics" in content:
                    answer = PRUNE if report(content["step"], content["metrics"]) else GO
                    with suppress(OSError):  # the job has died; the next line gives the reason
                        connection.sendall(f"{answer}\n".encode())
                elif "log" in content:
                    say(content["log"])
                else:
                    return self._result(content, TrainingError if order["trial"] else StageError)

    def _read(self, lines: IO[bytes]) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._line(lines))
        return content

    def _line(self, lines: IO[bytes]) -> bytes:
        try:
            line = lines.readline()
        except OSError as error:
            raise self._server_error() from error
        if not line:
            raise self._server_error()
        return line

    def _server_error(self) -> StageError:
        why = last_line(self._log).rstrip(".") if self._log else ""
        where = f" Log: {self._log}" if self._log else ""
        return StageError(f"the training process ended: {why or 'it printed nothing'}.{where}")


def running_server(framework: str) -> TrainingServer | None:
    """Returns a client of the server that has imported a framework for this run; None if there is none."""
    running = json.loads(os.environ.get(variables.TRAINING_SERVERS, "{}")).get(framework)
    return TrainingServer(running["address"], Path(running["log"])) if running else None


@contextmanager
def training_server(framework: str, log: Path | None = None) -> Iterator[TrainingServer]:
    """Yields a client of a framework's server: a running one, else a new one that is stopped at the end.

    Args:
        framework: as the config has it.
        log: output file of a new server; default: this process's output.
    """
    if running := running_server(framework):
        yield running
        return
    with temporary_folder() as folder:
        stop, address, _ = start_server(framework, folder, log)
        try:
            yield TrainingServer(address, log)
        finally:
            stop()


def start_server(
    framework: str, folder: Path, log: Path | None, *, bare: bool = False
) -> tuple[Callable[[], None], str, str | None]:
    """Starts a server; returns what stops it with its jobs, and the addresses of its sockets. It ends with this process.

    Args:
        framework: as the config has it.
        folder: folder of the sockets.
        log: see `training_server`.
        bare: whether it runs modules, see `module_server`; for PyTorch only.
    """
    addresses = [str(folder / name) for name in ("trainings", "modules")[: 1 + bare]]
    with ExitStack() as stack:
        descriptors = [stack.enter_context(unix_socket.listening(address)).fileno() for address in addresses]
        output = stack.enter_context(log.open("ab")).fileno() if log else 2
        stop = (_fork(framework, descriptors, output) if bare else None) or _start(framework, descriptors, output)
    return stop, addresses[0], addresses[1] if bare else None


def _start(framework: str, descriptors: Sequence[int], output: int) -> Callable[[], None]:
    process = interpreter.start(
        "switchyard.components.training.workers.training_server",
        [*map(str, descriptors), *(["-"] if len(descriptors) == 1 else []), *_modules(framework)],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        pass_fds=descriptors,
    )

    def stop() -> None:
        process.terminate()
        process.communicate()

    return stop


def _fork(framework: str, descriptors: Sequence[int], output: int) -> Callable[[], None] | None:
    """Forks both servers of PyTorch from warm processes; returns what stops them, or None if one was not found."""
    held, kept = os.pipe()
    trainings, modules = descriptors
    server = "switchyard.components.training.workers.training_server:serve_trainings"
    forked = warm.fork(warm.TRAININGS, server, _modules(framework), (held, output, output, trainings))
    os.close(held)
    stop_modules = _fork_modules(warm.BARE, modules, output)

    def stop() -> None:
        os.close(kept)  # its standard input
        if forked:
            forked.wait()
            forked.close()
        if stop_modules:
            stop_modules()

    if forked and stop_modules:
        return stop
    stop()
    return None


def _fork_modules(kind: str, listening: int, output: int) -> Callable[[], None] | None:
    """Forks a server of modules from a warm process; returns what stops it, or None if there is none."""
    held, kept = os.pipe()
    server = "switchyard.components.training.workers.training_server:serve_modules"
    forked = warm.fork(kind, server, None, (held, output, output, listening))
    os.close(held)
    if not forked:
        os.close(kept)
        return None

    def stop() -> None:
        os.close(kept)  # its standard input
        forked.wait()
        forked.close()

    return stop


class TrainingServers:
    """Servers that import their frameworks before the stages need them; servers that already run are reused.

    Attributes:
        environment: environment variables for those stages.
        to_fork: where the process that stages are forked from is to fork servers of TensorFlow models, see
            `module_server.fork_server`; None if it is not to.
    """

    def __init__(self, frameworks: Sequence[str], logs: Path) -> None:
        self._folder = TemporaryFolder()
        self.to_fork: str | None = None
        self._stop: list[Callable[[], None]] = []
        running = json.loads(os.environ.get(variables.TRAINING_SERVERS, "{}"))
        found = {f: running[f] for f in frameworks if f in running}
        modules = json.loads(os.environ.get(variables.MODULE_SERVERS, "{}"))
        for number, framework in enumerate(f for f in frameworks if f != STAGES_OWN and f not in found):
            log, folder = logs / f"trainings-{number}.log", self._folder.path / str(number)
            folder.mkdir()
            stop, address, bare = start_server(framework, folder, log, bare=framework == "pytorch")
            self._stop.append(stop)
            found[framework] = {"address": address, "log": str(log)}
            if bare:
                modules[framework] = bare
        if STAGES_OWN in frameworks and STAGES_OWN not in modules:
            modules[STAGES_OWN] = self._serve_stages_own(logs / "serving.log")
        self.environment = {variables.TRAINING_SERVERS: json.dumps(found), variables.MODULE_SERVERS: json.dumps(modules)}

    def _serve_stages_own(self, log: Path) -> str:
        """Returns the address where servers of a TensorFlow model are forked: from a warm process, else see `to_fork`."""
        address = str(self._folder.path / "serving")
        with unix_socket.listening(address) as listening, log.open("ab") as output:
            stop = _fork_modules(warm.SERVING, listening.fileno(), output.fileno())
        if stop:
            self._stop.append(stop)
        else:
            Path(address).unlink()
            self.to_fork = address
        return address

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the servers and their jobs."""
        while self._stop:
            self._stop.pop()()
        self._folder.remove()


def _modules(framework: str) -> list[str]:
    """Returns the modules to import before the first job; a user's own trainer is imported by each job."""
    return [] if is_file(framework) or framework not in TRAINERS else [TRAINERS[framework].partition(":")[0]]
