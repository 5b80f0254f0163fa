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


def table_console() -> Console:
    """Returns a console for tables on standard output, wide enough for all columns when that is no terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


@contextmanager
def quiet(log: Path | None = None) -> Iterator[None]:
    """Sends file descriptor 2 to `log` (None: nowhere) while inside (TensorFlow's C++ writes there, past Python's `sys.stderr`).

    What is meant for the screen goes through `screen()`, made before.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    target = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(target, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(target)
