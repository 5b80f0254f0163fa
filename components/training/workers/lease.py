"""A training stage's lease on its TrainJob's nodes: a file on their claim. Nodes shut down when the lease expires.

A node compares the file's content and measures time by its own clock, as the clocks of two machines may differ.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

# Longer than the retry of a killed stage takes, and than the tolerated outage of Kubernetes.
SECONDS = 900.0
_RENEWALS = 60
_EXPIRED = "expired"


class Lease:
    """A context manager that renews the lease, so that the nodes keep running."""

    def __init__(self, path: Path) -> None:
        self._path, self._over = path, threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")

    def __enter__(self) -> Self:
        """Acquires the lease, even if it has expired."""
        self._renew()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the renewals."""
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.wait(SECONDS / _RENEWALS):
            self._renew()

    def _renew(self) -> None:
        with suppress(OSError):  # full disk or unmounted claim: the lease outlasts many renewals
            self._path.write_text(str(time.time_ns()), encoding="utf-8")


def variable(path: Path) -> str:
    """Returns the value of the lease's environment variable: seconds and path."""
    return f"{SECONDS:g}:{path}"


def expired(given: str) -> bool:
    """Returns whether a node marked the lease as expired, without a later renewal by the stage."""
    return _content(Path(given.partition(":")[2])) == _EXPIRED


def await_expiry(given: str) -> None:
    """Blocks until the lease has expired; then marks it, so that nodes that start later exit at once.

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
