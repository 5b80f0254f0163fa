"""Runs duties immediately when a task receives SIGTERM: Kubernetes under Argo leaves at most a second.

Each duty runs in its own thread: the main thread may be inside native code, where it cannot handle signals, and unwinds later.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)
_duties: list[Callable[[], None]] = []


@contextmanager
def at_termination(duty: Callable[[], None]) -> Iterator[None]:
    """Registers `duty` to run immediately on SIGTERM within the block; unwinding may repeat it."""
    _duties.append(duty)
    try:
        yield
    finally:
        _duties.remove(duty)


def perform() -> None:
    """Starts all duties in parallel."""
    for duty in reversed(_duties):
        threading.Thread(target=_safely, args=(duty,), daemon=True, name="at termination").start()


def _safely(duty: Callable[[], None]) -> None:
    try:
        duty()
    except Exception:  # for example an unreachable server; unwinding retries and reports
        _log.warning("could not run immediately", exc_info=True)
