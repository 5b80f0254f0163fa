"""What is done at once when a task is ended from outside (SIGTERM): Kubernetes under Argo leaves a second, at most.

It is done in threads of its own: the main one may be in a library's own code, where it hears no signal, and unwinds in its time.
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
    """Has `duty` done at once, should SIGTERM come inside; what is inside may do the same again when it unwinds."""
    _duties.append(duty)
    try:
        yield
    finally:
        _duties.remove(duty)


def perform() -> None:
    """Starts every duty, beside each other."""
    for duty in reversed(_duties):
        threading.Thread(target=_safely, args=(duty,), daemon=True, name="at termination").start()


def _safely(duty: Callable[[], None]) -> None:
    try:
        duty()
    except Exception:  # an unreachable server, for example; unwinding tries again, and reports it
        _log.warning("could not be done at once", exc_info=True)
