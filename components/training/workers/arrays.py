"""Arrays by name over a socket: a line of JSON with their dtypes and shapes, then their values."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from io import BufferedReader

import numpy as np


def send(connection: socket.socket, arrays: Mapping[str, np.ndarray]) -> None:
    """Sends arrays of numbers."""
    contiguous = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    header = {"arrays": [[name, values.dtype.str, values.shape] for name, values in contiguous.items()]}
    connection.sendall((json.dumps(header) + "\n").encode())
    for values in contiguous.values():
        connection.sendall(values.data.cast("B") if values.size else b"")


def receive(header: bytes, values: BufferedReader) -> dict[str, np.ndarray]:
    """Returns the arrays that `send` sent.

    Args:
        header: the line of JSON.
        values: what follows it.

    Raises:
        EOFError: the sender closed the connection.
    """
    found = {}
    for name, kind, shape in json.loads(header)["arrays"]:
        dtype = np.dtype(kind)
        content = bytearray(dtype.itemsize * int(np.prod(shape, dtype=np.int64)))
        if values.readinto(content) != len(content):
            raise EOFError(f"the connection was closed before {name}")
        found[name] = np.frombuffer(content, dtype).reshape(shape)
    return found
