"""Child processes that run one job each (a stage's executor, or the checks before a run): forked preloaded, logging to a file.

A crash, an out-of-memory kill or a leak in one stage does not affect the runner or the other stages.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from switchyard.components.compat import fork_server
from switchyard.components.errors import CancelledError, StageError, last_line
from switchyard.components.failure import classify
from switchyard.components.process import interpreter, variables, warm
from switchyard.components.process.full_disk import disk_is_full, full_disk, note_written
from switchyard.components.process.temporary import TemporaryFolder
from switchyard.components.process.warm import Forked
from switchyard.components.text.redaction import install, masked
from switchyard.components.tracking.context import RunContext

_HINTS = {
    "SIGKILL": "Perhaps the machine ran out of memory.",
    "SIGBUS": "Perhaps a disk, or the shared memory in /dev/shm, is full.",
    "SIGXFSZ": "A file has reached the limit on its size (ulimit -f).",
}


@dataclass(frozen=True)
class Job:
    """A child process's job.

    Attributes:
        target: `module:function`, called with `payload`; its return value must pickle.
        payload: the argument.
        log: file for the child's output.
        context: run context of the child.
        env: environment variables added to the runner's.
    """

    target: str
    payload: Any
    log: Path
    context: RunContext = field(default_factory=RunContext)
    env: Mapping[str, str] = field(default_factory=dict)


class StageProcesses:
    """Child processes forked from one preloaded server; as a context manager, it terminates them on exit."""

    def __init__(
        self, log: Path, trainers: Sequence[str], environment: Mapping[str, str] | None = None, serving: str | None = None
    ) -> None:
        """Configures the fork server.

        Args:
            log: file for the output of the preloading imports.
            trainers: additional modules to preload, as `module` or `module:attribute`.
            environment: environment variables of all children.
            serving: address for the server's own fork of a server of modules, see `preload`.
        """
        self._environment = dict(environment or {})
        os.environ[variables.PRELOAD_LOG] = str(log)
        os.environ[variables.PRELOAD_TRAINERS] = ",".join(t.partition(":")[0] for t in trainers)
        os.environ.pop(variables.PRELOAD_SERVING, None)
        if serving:
            os.environ[variables.PRELOAD_SERVING] = serving
        self._context = interpreter.fork_server("switchyard.pipelines.runners.local.preload")
        self._preload = log
        self._running: set[Any] = set()
        self._lock = threading.Lock()
        self._cancelled = False

    def warm(self) -> None:
        """Forks the fork server from a warm process; without one, starts its imports without waiting for them."""
        if not (warm.enabled() and fork_server.adopt(self._fork)):
            interpreter.ensure_fork_server()

    def _fork(self, descriptors: Sequence[int]) -> Forked | None:
        with open(os.devnull, "rb") as nothing, self._preload.open("ab") as log:
            standard = (nothing.fileno(), log.fileno(), log.fileno())
            target = "switchyard.pipelines.runners.local.warm:fork_stages"
            return warm.fork(warm.STAGES, target, None, (*standard, *descriptors))

    def check_cancelled(self) -> None:
        """Raises CancelledError after `close`."""
        if self._cancelled:
            raise CancelledError

    def run(self, job: Job, say: Callable[[str], None]) -> Any:
        """Runs a job and returns its result.

        Raises:
            UserError, TrainingError, StageError: the job raised it, or its process died.
            CancelledError: `close` was called.
        """
        # TensorFlow and TFX leave temporary files; a terminated child cannot delete them.
        try:
            folder = TemporaryFolder()
        except OSError as error:
            raise StageError(f"no temporary folder: {full_disk(error) or error}") from error
        context = job.context.for_child()
        try:
            return self._run(replace(job, env={"TMPDIR": str(folder.path), **self._environment, **context, **job.env}), say)
        finally:
            folder.remove()

    def _run(self, job: Job, say: Callable[[str], None]) -> Any:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_main, args=(sender, job), daemon=True)
        with self._lock:
            if self._cancelled:
                raise CancelledError
            try:
                self._start(process)
            except (OSError, EOFError) as error:
                receiver.close()
                sender.close()
                raise StageError(_not_started(self._preload)) from error
            self._running.add(process)
        sender.close()
        outcome: tuple[str, Any] | None = None  # `done` and the result, or `failed` and a Failure
        try:
            while True:
                kind, value = receiver.recv()
                if kind == "say":
                    say(value)
                else:
                    outcome = (kind, value)
        except EOFError:
            process.join()
        finally:
            receiver.close()
            with self._lock:
                self._running.discard(process)
        if self._cancelled and (outcome is None or outcome[0] != "done"):
            raise CancelledError
        if outcome is None:
            if not job.log.exists():
                raise StageError(_not_started(self._preload))
            raise StageError(_exit_reason(process.exitcode, job.log))
        kind, value = outcome
        if kind == "done":
            return value
        raise value.error()

    def _start(self, process: Any) -> None:
        """Forks a process. Raises OSError or EOFError if the fork server has died."""
        self.warm()  # restarts a fork server that was killed
        try:
            process.start()
        except (OSError, EOFError):
            if not fork_server.adopted():
                raise
            fork_server.release()
            interpreter.ensure_fork_server()
            process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Terminates all children and rejects new jobs; unfinished outputs are not published."""
        with self._lock:
            self._cancelled = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            process.join(5)
            if process.is_alive():
                process.kill()


def _not_started(preload: Path) -> str:
    """Returns why no child runs: the fork server died, or the child did before it opened its log."""
    if full := disk_is_full(preload):
        return f"a stage's process could not be started: {full} Log: {preload}"
    why = last_line(preload).rstrip(".") or "it printed nothing; perhaps it was killed, or the machine is out of memory"
    return f"the process that imports the libraries and starts the stages has ended: {why}. Log: {preload}"


def _exit_reason(code: int | None, log: Path) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = f" {_HINTS[name]}" if name in _HINTS else ""
        full = disk_is_full(log) if name in ("SIGBUS", "SIGXFSZ") else None
        return f"its process was killed by {name}.{hint}{f' Now {full}' if full else ''} Log: {log}"
    if full := disk_is_full(log):
        return f"its process ended with exit code {code} and no result: {full} Log: {log}"
    return f"its process ended with exit code {code} and no result. Log: {log}"


def _main(sender: Connection, job: Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner handles Ctrl-C and terminates its children
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_the_runner()
    lock = threading.Lock()

    def send(kind: str, value: Any) -> None:
        with lock:
            sender.send((kind, value))

    code = 0
    note_written(job.log)
    try:
        _log_to(job.log)
        send("done", _work(job, lambda text: send("say", text)))
    except BaseException as error:
        # Send the reason first: on a full disk, writing to the log fails.
        send("failed", classify(error, job.log))
        code = 1
        with suppress(OSError):
            traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    sender.close()
    # Not sys.exit: threads and native libraries that do not stop must not delay the stage's end.
    os._exit(code)


def _log_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.stdout = masked(os.fdopen(1, "w", buffering=1))
    sys.stderr = os.fdopen(2, "w", buffering=1)


def _work(job: Job, say: Callable[[str], None]) -> Any:
    from switchyard.components import progress

    sys.argv = sys.argv[:1]  # TFX passes the command line's arguments to executors
    os.environ.update(job.env)
    install()
    # Parallel stages share a GPU; by default TensorFlow allocates all of its memory.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    tempfile.tempdir = None  # reset the cached path: TMPDIR has changed
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    progress.set_sink(say)
    module, _, function = job.target.partition(":")
    __import__(module)
    return getattr(sys.modules[module], function)(job.payload)


def _die_with_the_runner() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True, name="runner-watch").start()
