"""Exchanges the addresses of a training's workers over a socket of the first one. Standard library only."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack

# Workers import their frameworks before they meet.
_PATIENCE_SECONDS = 600
_BETWEEN_ATTEMPTS = 0.1
_LINE_SECONDS, _LINE_LENGTH = 10, 100_000
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
    return _ask(index, own, meeting) if index else _collect(own, count, _listening(host, own_host, port, count))


def _listening(host: str, own_host: str, port: int, count: int) -> socket.socket:
    if host in _LOOPBACK:
        return socket.create_server((own_host, port), backlog=count)
    # The others may reach a node by an address that is not its name's, of either family: all interfaces.
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=count)
    return socket.create_server(("", port), backlog=count)


def _collect(own: str, count: int, listening: socket.socket) -> tuple[str, ...]:
    found, deadline = {0: own}, time.monotonic() + _PATIENCE_SECONDS
    with listening, ExitStack() as ends:
        others = []
        while len(found) < count:
            listening.settimeout(max(_BETWEEN_ATTEMPTS, deadline - time.monotonic()))
            connection = ends.enter_context(listening.accept()[0])
            try:
                index, address = _read(connection)
            except (OSError, ValueError, TypeError):  # a probe of the port, or a stranger
                connection.close()
                continue
            if index in found or not 0 < index < count:
                connection.close()
                continue
            others.append(connection)
            found[index] = address
        addresses = tuple(found[i] for i in range(count))
        for connection in others:
            connection.settimeout(_PATIENCE_SECONDS)
            connection.sendall((json.dumps(addresses) + "\n").encode())
    return addresses


def _read(connection: socket.socket) -> tuple[int, str]:
    """Returns the index and the address that a worker sends as soon as it has connected."""
    connection.settimeout(_LINE_SECONDS)
    index, address = json.loads(_line(connection))
    return int(index), str(address)


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
        line = lines.readline(_LINE_LENGTH)
    if not line:
        raise ConnectionError("a worker was lost while the workers exchanged their addresses")
    return line
