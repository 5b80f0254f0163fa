"""Processes that have imported the libraries and stay between commands: a command is forked from one instead of importing again.

A warm process imports and forks; it runs no user code, opens no database and initializes no device. Each serves one
environment, see `warm_key`. A command that finds none runs as without them, and starts those that it missed when it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from switchyard.components.process import interpreter, unix_socket, variables, warm_key
from switchyard.components.process.other_process import has_open, is_stopped
from switchyard.components.process.own_folder import own_folder

# Kinds of warm processes, and the modules that are run for those that are not forked from another.
STAGES, SERVING, TRAININGS, BARE = "stages", "serving", "trainings", "bare"
_MODULES = {
    STAGES: "switchyard.pipelines.runners.local.warm",
    SERVING: "switchyard.pipelines.runners.local.warm",
    TRAININGS: "switchyard.pipelines.runners.local.warm_trainings",
    BARE: "switchyard.pipelines.runners.local.warm_trainings",
}
_STOPPED = (
    "warm process {pid} is stopped, so that the libraries are imported anew; continue it with kill -CONT {pid}, or end it with "
    "switchyard warm stop"
)
_SILENT = (
    "warm process {pid} did not answer in {seconds:g} s, so that the libraries are imported anew; if this happens again, end it "
    "with switchyard warm stop, and a later command starts another"
)
# In place of a signal: the process forked from a warm one no longer ends with its client.
DETACHED = 0
_REPLY_SECONDS = 5.0
_LEFT_SECONDS = 2.0


@dataclass(frozen=True)
class _Warm:
    folder: Path
    key: str
    # The variables when warm processes were enabled: what the run sets later is not theirs.
    environment: dict[str, str]
    missed: set[str] = field(default_factory=set)


_enabled: list[_Warm] = []
_forked: weakref.WeakSet[Forked] = weakref.WeakSet()


class Forked:
    """A process forked from a warm one. It ends with this process, or when it is closed, unless it is left."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        _forked.add(self)

    def signal(self, number: int) -> None:
        """Sends a signal; SIGTERM to the process, any other to its group, as a terminal does."""
        with suppress(OSError):
            self._connection.sendall(bytes([number]))

    def wait(self) -> int | None:
        """Returns the exit code, or the negative number of the signal that ended it; None if it is unknown."""
        line = b""
        with suppress(OSError), self._connection.makefile("rb") as lines:
            line = lines.readline()
        return int(json.loads(line)["ended"]) if line else None

    def leave(self) -> None:
        """Lets the process continue without this one, which learns nothing of it any more."""
        with self._connection, suppress(OSError):
            self._connection.sendall(bytes([DETACHED]))

    def close(self) -> None:
        """Kills the process and waits for its end."""
        with self._connection, suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            self.wait()


def enable() -> None:
    """Makes this process use warm processes, unless they are disabled or a fork would differ from it."""
    environment = dict(os.environ)
    if environment.get(variables.WARM) == "0" or environment.get("CI") or warm_key.refusal(environment):
        return
    with suppress(OSError):
        if folder := runtime_folder():
            _enabled[:] = [_Warm(folder, warm_key.digest(environment), environment)]


def enabled() -> bool:
    """Whether this process uses warm processes."""
    return bool(_enabled)


def passed_on() -> dict[str, Any]:
    """Returns what a forked process needs to use the same warm processes, see `enable_as`."""
    [warm] = _enabled
    return {"folder": str(warm.folder), "key": warm.key, "environment": warm.environment}


def enable_as(given: Mapping[str, Any]) -> None:
    """Makes this process use the warm processes of the one that it stands for."""
    _enabled[:] = [_Warm(Path(given["folder"]), given["key"], dict(given["environment"]))]


def fork(kind: str, target: str, payload: Any, descriptors: Sequence[int]) -> Forked | None:
    """Forks a process with this one's environment, working directory, umask and ignored signals.

    Args:
        kind: kind of the warm process.
        target: `module:function`, called there with the payload and the descriptors after the third; returns an exit code.
        payload: JSON.
        descriptors: standard input, output and error of the process, then others.

    Returns:
        The process; None if there is no such warm process, which `start_missed` then starts.
    """
    if not _enabled:
        return None
    [warm] = _enabled
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_REPLY_SECONDS)
    order = {
        "target": target,
        "payload": payload,
        "environment": dict(os.environ),
        "umask": _umask(),
        "ignored": [number for number in _HANDED_ON if signal.getsignal(number) == signal.SIG_IGN],
    }
    pid = None
    try:
        unix_socket.connect(connection, str(warm.folder / f"{warm.key}-{kind}"))
        pid, user = unix_socket.peer(connection)
        if user != os.geteuid():
            raise PermissionError
        if is_stopped(pid):
            _say_once(_STOPPED.format(pid=pid))
            raise ProcessLookupError
        folder = os.open(".", os.O_PATH | os.O_DIRECTORY)
        try:
            socket.send_fds(connection, [b"f"], [folder, *descriptors])
        finally:
            os.close(folder)
        connection.sendall((json.dumps(order) + "\n").encode())
        if connection.recv(1) != b"s":  # started
            raise EOFError
    except (OSError, EOFError) as error:
        connection.close()
        if isinstance(error, TimeoutError) and pid is not None:
            _say_once(_SILENT.format(pid=pid, seconds=_REPLY_SECONDS))
        warm.missed.add(kind)
        return None
    connection.settimeout(None)
    return Forked(connection)


@cache
def _say_once(why: str) -> None:
    """Says why a warm process is not used; several are forked from one in a run."""
    sys.stderr.write(f"warning: {why}\n")


def start_missed() -> None:
    """Starts the warm processes that `fork` did not find; returns immediately.

    Those of another environment are stopped, which bounds the memory. While they are still unused, none is started: where each
    command has other variables, none would ever be used.
    """
    for warm in _enabled:
        if not warm.missed:
            return
        found = list(running())
        ours = {one.kind: one for one in found if one.key == warm.key}
        others = [one for one in found if one.key != warm.key]
        if any(one.kind == STAGES and not one.is_used for one in others):
            return
        importing = {_MODULES.get(one.kind) for one in ours.values() if not one.is_ready}
        modules = {_MODULES[kind] for kind in warm.missed if kind not in ours} - importing
        # The module that starts two kinds ends where one of them runs.
        left = [one for one in ours.values() if one.is_ready and _MODULES.get(one.kind) in modules]
        stop([*others, *left], _LEFT_SECONDS if left else 0)
        for module in sorted(modules):
            with suppress(OSError):  # another command has started it
                _started.append(_start(module, warm))


def _start(module: str, warm: _Warm) -> subprocess.Popen[Any]:
    """Starts a warm process, which outlives this one. It has its lock from the start, so that `running` finds it."""
    kind = next(kind for kind, of in _MODULES.items() if of == module)
    lock = os.open(warm.folder / f"{warm.key}-{kind}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        with (warm.folder / f"{warm.key}.log").open("ab") as log:
            process = interpreter.start(
                module,
                [str(warm.folder), warm.key, str(lock)],
                env=warm.environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock,),
            )
        os.pwrite(lock, str(process.pid).encode(), 0)
    finally:
        os.close(lock)
    return process


def stop(found: Sequence[Running], seconds: float) -> list[Running]:
    """Ends warm processes; returns those that still run after as many seconds."""
    for one in found:
        with suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGTERM)
            if is_stopped(one.pid):
                os.kill(one.pid, signal.SIGCONT)  # which handles it then
    deadline = time.monotonic() + seconds
    while (left := {one.pid for one in found} & {one.pid for one in running()}) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [one for one in found if one.pid in left]


_started: list[subprocess.Popen[Any]] = []
# Signals that a shell or `nohup` may have a command ignore.
_HANDED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGTSTP)


def stand_for(target: str, payload: Any) -> int | None:
    """Runs a command in a fork of a warm process as if in this one; returns its exit code.

    A fork that a signal has ended ends this process too.

    Returns:
        None if there is no warm process: the command is run by this one.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDED_ON)
    forked = fork(STAGES, target, payload, (0, 1, 2))
    if forked:
        for number in _HANDED_ON:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, _: _hand_on(forked, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if forked is None:
        return None
    code = forked.wait()
    if code is None:
        sys.stderr.write(
            "error: the process that ran this command was killed with its parent; run it again, finished stages are kept\n"
        )
        return 1
    if code < 0:
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _hand_on(forked: Forked, number: int) -> None:
    forked.signal(number)
    if number == signal.SIGTSTP:
        handler = signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, handler)  # here when this process continues
        forked.signal(signal.SIGCONT)


def stop_with_its_forks() -> None:
    """Makes a Ctrl-Z stop the processes forked for this one as well, until it continues."""

    def stop(*_: Any) -> None:
        for forked in list(_forked):
            forked.signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        for forked in list(_forked):
            forked.signal(signal.SIGCONT)

    if signal.getsignal(signal.SIGTSTP) != signal.SIG_IGN:
        signal.signal(signal.SIGTSTP, stop)


def runtime_folder() -> Path | None:
    """Returns the user's folder for the sockets; None if there is none that is theirs alone."""
    user = os.geteuid()
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    try:
        theirs = runtime.is_absolute() and runtime.stat().st_uid == user
    except OSError:
        theirs = False
    folder = own_folder("switchyard", str(runtime)) if theirs else own_folder(f"switchyard-warm-{user}")
    return folder if folder and not folder.stat().st_mode & 0o077 else None


@dataclass(frozen=True)
class Running:
    """A warm process.

    Attributes:
        key: the digest of its environment.
        kind: what it has imported.
        pid: its process id.
        is_ready: whether its imports are done.
        is_used: whether anything was forked from it.
    """

    key: str
    kind: str
    pid: int
    is_ready: bool
    is_used: bool


def running() -> Iterator[Running]:
    """Yields this user's warm processes, of all environments."""
    folder = runtime_folder()
    for lock in sorted(folder.glob("*.lock")) if folder else ():
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                key, _, kind = lock.stem.partition("-")
                text = file.read()
                with suppress(ValueError):  # its id is not written yet
                    pid = int(text.rstrip("+"))
                    if has_open(pid, file.fileno()):
                        yield Running(key, kind, pid, lock.with_suffix("").exists(), text.endswith("+"))


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
