"""Runs modules as `python -m` does, in forks of a process that has imported a framework as serving needs it, and nothing else.

Infra validation's servers are started so: they need not import the framework again, and nothing of the run, of its trainer or
of the user's code is in them. `training_server.serve_modules` is the other end.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from switchyard.components.process import interpreter, unix_socket, variables


class ModuleServer:
    """A client of a server of modules.

    Args:
        address: address of its socket.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def start(
        self, module: str, arguments: Sequence[str], inherited: socket.socket, output: IO[Any], environment: Mapping[str, str]
    ) -> ForkedProcess | None:
        """Starts `python -m module DESCRIPTOR arguments` in a fork.

        Args:
            module: the module; its standard input ends with this process.
            arguments: its arguments after the number of the inherited descriptor.
            inherited: the socket to inherit.
            output: file for its output.
            environment: its environment variables.

        Returns:
            The process; None if no server listens.
        """
        connection = socket.socket(socket.AF_UNIX)
        order = {"module": module, "arguments": list(arguments), "environment": dict(environment)}
        try:
            send_order(connection, self._address, order, [output.fileno(), inherited.fileno()])
        except OSError:
            connection.close()
            return None
        return ForkedProcess(connection)


def send_order(connection: socket.socket, address: str, order: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Sends an order with descriptors over a connection to a listening socket. Raises OSError."""
    unix_socket.connect(connection, address)
    socket.send_fds(connection, [b"j"], descriptors)
    connection.sendall((json.dumps(order) + "\n").encode())


class ForkedProcess:
    """A process that `ModuleServer.start` started; it ends with this process."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ended: str | None = None

    def ended(self) -> str | None:
        """Returns how the process ended; None while it runs."""
        if self._ended is None and select.select([self._connection], [], [], 0)[0]:
            line = b""
            with suppress(OSError), self._connection.makefile("rb") as lines:
                line = lines.readline()
            self._ended = str(json.loads(line)["died"]) if line else "its process ended"
        return self._ended

    def stop(self, seconds: float) -> None:
        """Kills the process and waits for its end, up to `seconds`."""
        with self._connection, suppress(OSError):
            self._connection.settimeout(seconds)
            self._connection.shutdown(socket.SHUT_WR)
            while self._connection.recv(1024):
                pass


def running_module_server(framework: str) -> ModuleServer | None:
    """Returns a client of the run's server of modules that has imported a framework; None if there is none."""
    address = json.loads(os.environ.get(variables.MODULE_SERVERS, "{}")).get(framework)
    return ModuleServer(address) if address else None


def fork_server(address: str) -> None:
    """Forks a server of modules with the imports of this process so far; it ends with this process and its forks."""
    from switchyard.components.training.workers.training_server import serve_modules

    Path(address).unlink(missing_ok=True)  # of a process that was killed
    listening = unix_socket.listening(address)
    held, _kept = os.pipe()  # open as long as this process is
    if os.fork():
        listening.close()
        os.close(held)
        return
    os.close(_kept)
    os.dup2(held, 0)
    os.close(held)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner handles interrupts
    sys.path[:] = interpreter.path()
    serve_modules(None, [listening.detach()])
