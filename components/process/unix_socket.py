"""Unix sockets whose paths may be longer than socket addresses, and the user at their other end."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def listening(address: str) -> socket.socket:
    """Returns a socket that listens on a new path, which exists once connections are accepted."""
    found, temporary = socket.socket(socket.AF_UNIX), f"{address}.new"
    with suppress(FileNotFoundError):  # of a process that was killed here
        Path(temporary).unlink()
    with _short(temporary) as name:
        found.bind(name)
    found.listen()
    Path(temporary).rename(address)
    return found


def connect(connection: socket.socket, address: str) -> None:
    """Connects a Unix socket to a path. Raises OSError."""
    with _short(address) as name:
        connection.connect(name)


def peer(connection: socket.socket) -> tuple[int, int]:
    """Returns the process id and the user id of the other end, as the kernel recorded them."""
    fields = struct.Struct("3i")
    pid, uid, _ = fields.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, fields.size))
    return pid, uid


@contextmanager
def _short(address: str) -> Iterator[str]:
    """Yields a path to a socket within the length limit of socket addresses, however deep its folder is."""
    if sys.platform != "linux":  # no `/proc`: the address is used as it is
        yield address
        return
    folder = os.open(os.path.dirname(address), os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(address)}"
    finally:
        os.close(folder)
