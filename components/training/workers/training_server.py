"""`python -m switchyard.components.training.workers.training_server SOCKET BARE [MODULE...]`: runs each training job in a fork.

The server imports the trainer's framework once and never uses it, so that every job starts from the same clean state, and a crash
or an out-of-memory kill affects only its own job. The server imports none of the stages' libraries: PyTorch models train without
TensorFlow.

A job is submitted over a connection to the listening socket (file descriptor `SOCKET`): one byte with the descriptor of its log,
then lines of JSON. The first line is the order (`job`, `check` or `predict`; `trial`, `environment`, `path`). The replies are
`step` and `metrics` once per epoch, answered by `go` or `prune`; `log`; and finally one of `done`, `pruned`, `failed` and `died`.
A job that predicts replies `ready`, then with arrays to each request of arrays, see `arrays`. Closing the connection ends the
job; closing standard input ends all jobs.

With a second listening socket (`BARE`, else `-`) a fork of the server that has imported PyTorch and a bundle's predictor, and not
the trainer, runs modules, see `module_server`. The order is `module`, `arguments` and `environment`; a second descriptor is
inherited, its number is the first argument. Standard input is the connection, whose end ends the process.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from switchyard.components.bundle.code import PREDICTORS, load_predictor_class
from switchyard.components.compat.python_exit import exit_at_once
from switchyard.components.errors import Failure, TrainingError, UserError, in_one_line
from switchyard.components.failure import classify
from switchyard.components.import_order import import_scipy_signal_later, import_torch_first, transformers_later
from switchyard.components.process.full_disk import note_written
from switchyard.components.text.redaction import install
from switchyard.components.training.workers import arrays
from switchyard.components.training.workers.protocol import GO, PRUNE
from switchyard.components.user_code.loading import users_error

_POLL_MS = 100
_WITHOUT_PYTORCH = {f"switchyard.components.training.{name}.trainer" for name in ("tensorflow", "lightgbm")}


class _Pruned(BaseException):
    """A signal that ends a pruned training; no Exception, so that no code in between catches it as an error."""


def main(descriptor: int, bare: int | None, modules: list[str]) -> NoReturn:
    """Serves until standard input closes; see the module docstring."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner handles interrupts
    install()
    if not _WITHOUT_PYTORCH & set(modules):
        import_torch_first()
    forks = [] if bare is None else [_fork_bare(descriptor, bare)]
    import_trainers(modules)
    _Server(socket.socket(fileno=descriptor), _job, forks).serve()


def import_trainers(modules: Sequence[str]) -> None:
    """Imports what a training needs, and the modules of trainers."""
    import_scipy_signal_later()
    with transformers_later():
        for module in ("switchyard.components.training.job", "switchyard.components.training.workers.group", *modules):
            importlib.import_module(module)


def _fork_bare(descriptor: int, bare: int) -> int:
    """Forks the server of modules; returns its process id."""
    importlib.import_module(PREDICTORS["pytorch"].partition(":")[0])
    child = os.fork()
    if child == 0:
        os.close(descriptor)
        serve_modules(None, [bare])
    os.close(bare)
    return child


def serve_trainings(modules: list[str], descriptors: Sequence[int]) -> NoReturn:
    """Runs jobs of a listening socket in this fork of a warm process, until standard input closes."""
    main(descriptors[0], None, modules)


def serve_modules(_: None, descriptors: Sequence[int]) -> NoReturn:
    """Runs modules, see `serve_trainings`."""
    _Server(socket.socket(fileno=descriptors[0]), _module).serve()


class _Server:
    def __init__(self, listening: socket.socket, job: Callable[[socket.socket], NoReturn], forks: Sequence[int] = ()) -> None:
        """Listens for jobs.

        Args:
            listening: a connection to it is a job.
            job: runs a job in this process, and exits.
            forks: other processes to end with this one.
        """
        self._listening, self._job, self._forks = listening, job, forks
        self._jobs: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._poll.register(0, 0)  # poll() always reports a hang-up
        self._poll.register(listening, select.POLLIN)

    def serve(self) -> NoReturn:
        """Serves until standard input closes."""
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        while True:
            for descriptor, event in self._poll.poll(_POLL_MS):
                if descriptor == 0:
                    self._end()
                elif descriptor == self._listening.fileno():
                    self._start(self._listening.accept()[0])
                elif event & (select.POLLHUP | select.POLLERR | select.POLLRDHUP):
                    self._hung_up(descriptor)
            self._reap()

    def _start(self, connection: socket.socket) -> None:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._listening.close()
            for other in self._jobs.values():
                other.close()
            self._job(connection)
        self._jobs[child] = connection
        self._poll.register(connection, select.POLLRDHUP)

    def _hung_up(self, descriptor: int) -> None:
        """Kills the job whose stage closed the connection."""
        for child, connection in self._jobs.items():
            if connection.fileno() == descriptor:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    def _reap(self) -> None:
        for child in list(self._jobs):
            done, status = os.waitpid(child, os.WNOHANG)
            if not done:
                continue
            connection = self._jobs.pop(child)
            self._poll.unregister(connection)
            if status:
                code = os.waitstatus_to_exitcode(status)
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                if code == -signal.SIGKILL:
                    how += ". Perhaps the machine ran out of memory"
                with suppress(OSError):
                    connection.sendall(_line({"died": f"its process {how}"}))
            connection.close()

    def _end(self) -> NoReturn:
        for child in self._jobs:
            os.kill(child, signal.SIGKILL)
        for child in self._forks:
            os.kill(child, signal.SIGTERM)
        for child in (*self._jobs, *self._forks):
            os.waitpid(child, 0)
        os._exit(0)


def _line(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content) + "\n").encode()


def _received(connection: socket.socket, standard_input: int) -> tuple[dict[str, Any], BufferedReader, list[int]]:
    """Receives an order and takes its environment and log; returns it, the next lines and the other descriptors."""
    try:
        _, (log, *others), _, _ = socket.recv_fds(connection, 1, 2)
        for descriptor, target in ((standard_input, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, target)
        lines = connection.makefile("rb")
        order = json.loads(lines.readline())
        os.environ.clear()
        os.environ.update(order["environment"])
        tempfile.tempdir = None  # recomputed from the new environment
    except (OSError, ValueError):
        os._exit(1)  # the stage is gone
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    install()
    return order, lines, others


def _module(connection: socket.socket) -> NoReturn:
    """Runs a module, and exits this process."""
    order, _, (inherited,) = _received(connection, connection.fileno())
    sys.argv = [order["module"], str(inherited), *order["arguments"]]
    code: Any = 0
    sys.modules.pop(order["module"], None)  # imported for what it imports; `runpy` warns of it
    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    exit_at_once(code if isinstance(code, int) else int(code is not None))


def _job(connection: socket.socket) -> NoReturn:
    """Runs one job, and exits this process."""
    order, lines, _ = _received(connection, os.open(os.devnull, os.O_RDONLY))
    sys.path[:] = order["path"]
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )

    def send(**content: Any) -> None:
        connection.sendall(_line(content))

    def report(step: int, metrics: Mapping[str, float]) -> None:
        send(step=step, metrics=dict(metrics))
        answer = lines.readline().decode().strip()
        if answer == PRUNE:
            raise _Pruned
        if answer != GO:
            os._exit(1)  # the stage is gone

    try:
        if "predict" in order:
            _predict(order["predict"], connection, lines)
            os._exit(0)  # the stage needs no more predictions
        end: dict[str, Any] = {"done": _done(order, report, send)}
    except _Pruned:
        end = {"pruned": True}
    except (UserError, TrainingError) as error:
        end = {"failed": asdict(Failure(error.kind, str(error)))}
    except BaseException as error:
        traceback.print_exc()
        # Any failure of a trial is a TrainingError, as another trial may succeed.
        of_trial = Failure(TrainingError.kind, users_error(error) or in_one_line(error))
        end = {"failed": asdict(of_trial if order["trial"] else classify(error, None))}
    sys.stdout.flush()
    sys.stderr.flush()
    with suppress(OSError):
        send(**end)
    # Leftover threads and native libraries must not delay the exit.
    os._exit(0)


def _predict(order: Mapping[str, str], connection: socket.socket, lines: BufferedReader) -> None:
    """Loads a trainer's export and predicts until the stage closes the connection."""
    predict = load_predictor_class(Path(order["bundle"]), order["predictor"]).load_predictor(Path(order["export"]))
    connection.sendall(_line({"ready": True}))
    while header := lines.readline():
        arrays.send(connection, {"scores": predict(arrays.receive(header, lines))})


def _done(order: Mapping[str, Any], report: Any, send: Any) -> Any:
    from switchyard.components.progress import set_sink
    from switchyard.components.training.job import TrainingJob, check_trainer
    from switchyard.components.training.settings import TrainerSettings
    from switchyard.components.training.workers.group import train_here

    if not order["trial"]:
        set_sink(lambda text: send(log=text))
    if "check" in order:
        return check_trainer(TrainerSettings.model_validate(order["check"]))
    note_written(Path(order["job"]["state"]))
    return asdict(train_here(TrainingJob.model_validate(order["job"]), report))


if __name__ == "__main__":
    main(int(sys.argv[1]), None if sys.argv[2] == "-" else int(sys.argv[2]), sys.argv[3:])
