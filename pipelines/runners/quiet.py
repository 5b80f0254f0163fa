"""Keeps what libraries print, in Python and below it, off the screen and in a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console


def screen() -> Console:
    """Returns a console on standard error that `quiet` does not silence."""
    return Console(file=os.fdopen(os.dup(2), "w", encoding="utf-8"), stderr=True)


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Sends file descriptor 2 to `log` while inside (TensorFlow's C++ writes there, past Python's `sys.stderr`).

    What is meant for the screen goes through `screen()`, made before.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(target, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(target)
