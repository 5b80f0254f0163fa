"""A warm process: imports, then forks a process for each order, see `warm`.

Each order is served by two forks: the process itself, and one that waits for it, hands signals on to it, reports its exit code
and kills it when the connection closes. So the warm process may end at any time without ending what was forked from it.

An order is one byte with the descriptors (working directory, standard input, output and error, others), then a line of JSON. The
reply is `s` as the process starts, then a line of JSON with its exit code. Each further byte from the client is a signal, or
`warm.DETACHED`.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from switchyard.components.compat.python_exit import exit_at_once
from switchyard.components.process import unix_socket, warm_key
from switchyard.components.process.warm import DETACHED

IDLE_SECONDS = 15 * 60.0
_LOOK_SECONDS = 15.0
_ORDER_SECONDS = 10.0
_OLD_SECONDS = 24 * 3600.0
_MOST_DESCRIPTORS = 8
_PR_SET_PDEATHSIG = 1
_IGNORED = (signal.SIGINT, signal.SIGHUP)
_TO_ITSELF = (signal.SIGTERM, signal.SIGKILL)


class WarmServer:
    """One warm process; as soon as another of its name runs, it exits when it is made.

    Args:
        folder: folder of the sockets.
        key: digest of what it inherits, see `warm_key`.
        kind: what it imports.
        lock: descriptor of its lock's file, if what has started it has locked it.
        idle_seconds: it ends after as long without an order and without a process forked from it.
    """

    def __init__(self, folder: Path, key: str, kind: str, lock: int | None = None, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._folder, self._key, self._idle_seconds = folder, key, idle_seconds
        self._started = time.time_ns()
        self._environment = dict(os.environ)
        self._installed = warm_key.installed()
        self._children: set[int] = set()
        self._lock = -1
        self._take(kind, lock)

    def fork(self, kind: str) -> bool:
        """Forks a warm process of another kind with the imports so far; returns whether this is the fork."""
        if os.fork():
            return False
        os.close(self._lock)
        self._take(kind)
        return True

    def _take(self, kind: str, lock: int | None = None) -> None:
        self._address = self._folder / f"{self._key}-{kind}"
        if lock is None:
            lock = os.open(f"{self._address}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.set_inheritable(lock, False)
        self._lock = lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os._exit(0)
        self._address.unlink(missing_ok=True)  # of one that was killed
        _remove_old(self._folder)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def _note_use(self) -> None:
        """Marks the lock's file, see `warm.running`."""
        os.pwrite(self._lock, b"+", len(str(os.getpid())))

    def serve(self) -> NoReturn:
        """Serves orders until it is idle, terminated, or what it has imported has changed."""
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        # What was changed during the imports may have been read before or after the change.
        self._files = _loaded()
        if any(modified >= self._started for modified, *_ in self._files.values()):
            os._exit(0)
        if threading.active_count() > 1:  # of a debugger's or a profiler's package: no fork would have it
            os._exit(0)
        before = self._environment
        self._by_imports = {n: (before.get(n), value) for n, value in os.environ.items() if before.get(n) != value}
        gc.collect()
        gc.freeze()  # the collector would copy the pages that forks share
        os.umask(0o077)
        self._listening = unix_socket.listening(str(self._address))
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        self._listening.settimeout(min(_LOOK_SECONDS, self._idle_seconds))
        used = time.monotonic()
        while True:
            try:
                connection, _ = self._listening.accept()
            except TimeoutError:
                self._reap()
                if self._children:
                    used = time.monotonic()
                elif time.monotonic() - used >= self._idle_seconds:
                    self._end()
                if self._changed():
                    self._end()
                continue
            if self._changed():
                self._end()
            with connection:
                if unix_socket.peer(connection)[1] == os.geteuid():
                    used = time.monotonic()
                    self._note_use()
                    self._fork(connection)
            self._reap()

    def _fork(self, connection: socket.socket) -> None:
        child = os.fork()
        if child:
            self._children.add(child)
            return
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._listening.close()
            os.close(self._lock)
            _supervise(connection, self._by_imports)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _changed(self) -> bool:
        """Whether a package, the lock, or a file of an imported module is another than at its import."""
        return warm_key.installed() != self._installed or any(
            warm_key.stamp(path) != before for path, before in self._files.items()
        )

    def _reap(self) -> None:
        self._children = {child for child in self._children if os.waitpid(child, os.WNOHANG) == (0, 0)}

    def _end(self) -> NoReturn:
        self._address.unlink(missing_ok=True)
        os._exit(0)


def _remove_old(folder: Path) -> None:
    """Removes what warm processes of a day ago and earlier have left."""
    for path in folder.glob("*.lock"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime < _OLD_SECONDS:
                continue
            with path.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its process has ended
                path.unlink()
                path.with_suffix("").unlink(missing_ok=True)
                path.with_name(path.name.partition("-")[0] + ".log").unlink(missing_ok=True)


def _loaded() -> dict[str, tuple[int, ...]]:
    """Returns the file of each imported module -> when it was modified, its size and its inode."""
    files = {vars(module).get("__file__") for module in list(sys.modules.values()) if hasattr(module, "__dict__")}
    return {path: warm_key.stamp(path) for path in files if isinstance(path, str)}


def _supervise(connection: socket.socket, by_imports: Mapping[str, tuple[str | None, str]]) -> NoReturn:
    """Forks the process of an order, and stays with it until it has ended."""
    connection.settimeout(_ORDER_SECONDS)
    try:
        _, descriptors, _, _ = socket.recv_fds(connection, 1, _MOST_DESCRIPTORS)
        with connection.makefile("rb") as lines:
            order = json.loads(lines.readline())
        connection.sendall(b"s")
    except (OSError, ValueError):
        os._exit(0)  # the client is gone
    connection.settimeout(None)
    # One that arrives before the process handles it is kept for it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    child = os.fork()
    if child == 0:
        connection.close()
        # What libraries set as they are imported, they would have set in a fresh process too.
        given = order["environment"]
        changed = {name: after for name, (before, after) in by_imports.items() if given.get(name) == before}
        _become(order, descriptors, {**given, **changed}, mask)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for descriptor in descriptors:
        os.close(descriptor)
    with suppress(OSError):  # it may have done so itself, or have ended
        os.setpgid(child, child)
    process = os.pidfd_open(child)
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(process, select.POLLIN)
    ends_with_client = True
    while True:
        ready = dict(poll.poll())
        if process in ready:
            break
        numbers = b""
        with suppress(OSError):
            numbers = connection.recv(64)
        ends_with_client &= DETACHED not in numbers
        if not numbers:
            poll.unregister(connection)
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL if ends_with_client else 0)
        for number in numbers:
            with suppress(ProcessLookupError):
                (os.kill if number in _TO_ITSELF else os.killpg)(child, number)
    _, status = os.waitpid(child, 0)
    with suppress(OSError):
        connection.sendall((json.dumps({"ended": os.waitstatus_to_exitcode(status)}) + "\n").encode())
    os._exit(0)


def _become(order: Mapping[str, Any], descriptors: list[int], environment: Mapping[str, str], mask: set[Any]) -> NoReturn:
    """Makes this fork the process of an order, runs it and exits; `mask` is what it is to have of blocked signals."""
    with suppress(OSError):
        os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # ends with the process that waits for it
    folder, *standard = descriptors
    os.fchdir(folder)
    os.close(folder)
    for number, descriptor in enumerate(standard[:3]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.umask(order["umask"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number in order["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # recomputed from the new environment
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=stream is sys.stderr or stream.isatty())
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # as in a fresh process, not the same in every fork
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = _target(order["target"])(order["payload"], standard[3:])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    exit_at_once(code)


def _target(name: str) -> Callable[[Any, list[int]], int]:
    module, _, function = name.partition(":")
    found: Callable[[Any, list[int]], int] = getattr(importlib.import_module(module), function)
    return found
