"""Redirects libraries' output, from Python and native code, from the screen to a file."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from switchyard.components.text.redaction import masked
from switchyard.pipelines.terminal.console import PlainTextConsole, SilentConsole


def stderr_console() -> Console:
    """Returns a console on standard error that `quiet` does not silence."""
    return PlainTextConsole(file=masked(os.fdopen(os.dup(2), "w", encoding="utf-8")), stderr=True)


@contextmanager
def progress_console(shown: bool) -> Iterator[Console]:
    """Yields the console for a run's progress: standard error, or a silent one whose warnings become Python's warnings."""
    if shown:
        yield stderr_console()
        return
    silent = SilentConsole()
    try:
        yield silent
    finally:
        for text in silent.warnings:
            warnings.warn(text, stacklevel=4)  # this generator, contextlib, the function, its caller


def table_console() -> Console:
    """Returns a console for tables on standard output, wide enough for all columns if it is no terminal.

    Texts are shown literally: the name of a column may look like Rich's markup.
    """
    return PlainTextConsole(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)


@contextmanager
def quiet(log: Path | None = None, *, stdout: bool = False) -> Iterator[None]:
    """Redirects file descriptor 2 to `log` (None: nowhere) inside; TensorFlow's C++ code writes there, bypassing `sys.stderr`.

    Output for the screen goes through a `stderr_console()` created before. `stdout`: redirects file descriptor 1 too.
    """
    streams = {2: sys.stderr, **({1: sys.stdout} if stdout else {})}
    for stream in streams.values():
        stream.flush()
    saved = {fd: os.dup(fd) for fd in streams}
    target = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for fd in streams:
            os.dup2(target, fd)
        yield
    finally:
        for fd, stream in streams.items():
            stream.flush()
            os.dup2(saved[fd], fd)
            os.close(saved[fd])
        os.close(target)
