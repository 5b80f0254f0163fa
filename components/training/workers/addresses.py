"""Exchanges the addresses of a training's workers over a socket of the first one. Standard library only."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack

# Workers import their frameworks before they meet.
_PATIENCE_SECONDS = 600
_BETWEEN_ATTEMPTS = 0.1
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def exchanged(index: int, count: int, meeting: tuple[str, int]) -> tuple[str, ...]:
    """Returns a free `host:port` of each worker; every worker calls it once.

    Args:
        index: index of this worker.
        count: number of workers.
        meeting: host of the first worker and a free port there.

    Raises:
        OSError: a worker did not come in time, or was lost meanwhile.
    """
    host, port = meeting
    own_host = "127.0.0.1" if host in _LOOPBACK else socket.gethostbyname(socket.gethostname())
    with socket.socket() as free:
        free.bind((own_host, 0))
        own = f"{own_host}:{free.getsockname()[1]}"
    # The others may reach a node by an address that is not its name's: all interfaces.
    return _ask(index, own, meeting) if index else _collect(own, count, (own_host if host in _LOOPBACK else "", port))


def _collect(own: str, count: int, place: tuple[str, int]) -> tuple[str, ...]:
    found, deadline = {0: own}, time.monotonic() + _PATIENCE_SECONDS
    with socket.create_server(place, backlog=count) as listening, ExitStack() as ends:
        others = []
        while len(found) < count:
            listening.settimeout(max(_BETWEEN_ATTEMPTS, deadline - time.monotonic()))
            connection = ends.enter_context(listening.accept()[0])
            connection.settimeout(_PATIENCE_SECONDS)
            others.append(connection)
            index, address = json.loads(_line(connection))
            found[int(index)] = str(address)
        addresses = tuple(found[i] for i in range(count))
        for connection in others:
            connection.sendall((json.dumps(addresses) + "\n").encode())
    return addresses


def _ask(index: int, own: str, meeting: tuple[str, int]) -> tuple[str, ...]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            connection = socket.create_connection(meeting, timeout=_PATIENCE_SECONDS)
            break
        except OSError:  # the first worker is not there yet, or its name is not known yet
            if time.monotonic() > deadline:
                raise
            time.sleep(_BETWEEN_ATTEMPTS)
    with connection:
        connection.sendall((json.dumps([index, own]) + "\n").encode())
        return tuple(json.loads(_line(connection)))


def _line(connection: socket.socket) -> str:
    with connection.makefile() as lines:
        line = lines.readline()
    if not line:
        raise ConnectionError("a worker was lost while the workers exchanged their addresses")
    return line
