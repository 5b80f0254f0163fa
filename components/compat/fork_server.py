"""Lets `multiprocessing` fork its processes from a warm process's fork instead of from a fork server that it starts; any TMPDIR.

`multiprocessing.forkserver` has no public way to use a server that another process has started. Its code is the same in Python
3.11 to 3.13, see `components.process.warm_key.refusal`.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import Any, NoReturn

_server: Any = getattr(forkserver, "_forkserver")  # noqa: B009 (the type stubs lack it)


# A socket's address has 107 bytes, of which `multiprocessing` needs `/pymp-12345678/listener-12345678`.
_LONGEST_FOLDER = 107 - 40
# What keeps the adopted server alive.
_kept: list[Any] = []


@cache
def shorten_addresses() -> None:
    """Gives this process's `multiprocessing` a short path to its sockets where the path of TMPDIR is too long for an address."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) <= _LONGEST_FOLDER:
        return
    # Open until the process ends. Its number, not `self`: children inherit the path.
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    tempfile.tempdir = f"/proc/{os.getpid()}/fd/{place}"
    try:
        util.get_temp_dir()  # made once
    finally:
        tempfile.tempdir = folder


def adopt(start: Callable[[Sequence[int]], Any]) -> bool:
    """Makes `start` start this process's fork server, unless it has one; returns whether it was started so, now or before.

    Args:
        start: given the descriptors for `serve`; returns what keeps the server alive, or None if it cannot be started.
    """
    if adopted() or _server._forkserver_pid is not None:
        return adopted()
    resource_tracker.ensure_running()
    shorten_addresses()
    with socket.socket(socket.AF_UNIX) as listening:
        # In a folder of this user's, as `forkserver` has it: what connects may send code.
        address = os.path.join(util.get_temp_dir(), "fork-server")
        Path(address).unlink(missing_ok=True)
        listening.bind(address)
        Path(address).chmod(0o600)
        listening.listen()
        alive, kept = os.pipe()
        started = start((listening.fileno(), alive))
        os.close(alive)
    if started is None:
        os.close(kept)
        return False
    _server._forkserver_address, _server._forkserver_alive_fd = address, kept
    # It is no child of this process, which cannot wait for it.
    _server.ensure_running = lambda: None
    _kept.append(started)
    return True


def adopted() -> bool:
    """Whether this process's fork server was started by `adopt`."""
    return bool(_kept)


def release() -> None:
    """Forgets the adopted server, so that `multiprocessing` starts one."""
    if adopted():
        _kept.pop()
        del _server.ensure_running
        os.close(_server._forkserver_alive_fd)
        _server._forkserver_address = _server._forkserver_alive_fd = None


def serve(descriptors: Sequence[int]) -> NoReturn:
    """Runs the fork server in this process until the process that adopts it has ended."""
    listening, alive = descriptors
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(SystemExit):
        forkserver.main(listening, alive, [])
    os._exit(0)
