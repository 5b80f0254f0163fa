"""A training stage's lease on its TrainJob's nodes: a file on their claim. Nodes whose stage is gone for good end by themselves.

A node compares what the file holds, by its own clock: those of two machines may differ.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

# Longer than a stage that was killed takes to be tried again, and than Kubernetes may be away.
SECONDS = 900.0
_RENEWALS = 60
_EXPIRED = "expired"


class Lease:
    """A context: inside of it the nodes go on."""

    def __init__(self, path: Path) -> None:
        self._path, self._over = path, threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")

    def __enter__(self) -> Self:
        """Takes the lease, also one that has expired."""
        self._renew()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Renews it no more."""
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.wait(SECONDS / _RENEWALS):
            self._renew()

    def _renew(self) -> None:
        with suppress(OSError):  # a full disk, or a claim that is away for a while: it lasts for many renewals
            self._path.write_text(str(time.time_ns()), encoding="utf-8")


def variable(path: Path) -> str:
    """Returns the variable's value."""
    return f"{SECONDS:g}:{path}"


def expired(given: str) -> bool:
    """Returns whether another node has found the lease expired, and the stage did not take it again."""
    return _content(Path(given.partition(":")[2])) == _EXPIRED


def await_expiry(given: str) -> None:
    """Returns when the lease was not renewed for its time; the nodes that come after know it at once.

    Args:
        given: see `variable`.
    """
    text, _, name = given.partition(":")
    seconds, path = float(text), Path(name)
    content, since = _content(path), time.monotonic()
    while time.monotonic() - since < seconds and content != _EXPIRED:
        time.sleep(seconds / _RENEWALS)
        found = _content(path)
        if found != content:
            content, since = found, time.monotonic()
    with suppress(OSError):
        path.write_text(_EXPIRED, encoding="utf-8")


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
