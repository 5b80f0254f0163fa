"""A folder of unfinished work that one process uses at a time; a killed process leaves it unlocked."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_SECONDS = 0.2


@contextmanager
def locked_folder(folder: Path, wait: Callable[[], None]) -> Iterator[bool]:
    """Creates a folder, which may be removed while it is locked, and locks it; yields whether another process had it before.

    Without locks on its file system the folder is used as if no other process had it.

    Args:
        folder: the folder.
        wait: called before each pause while another process uses the folder; may raise to end the wait.
    """
    waited = False
    while (lock := _try(folder)) is None:
        waited = True
        wait()
        time.sleep(_POLL_SECONDS)
    try:
        yield waited
    finally:
        os.close(lock)


def _try(folder: Path) -> int | None:
    """Returns the descriptor that holds the lock of a folder; None while another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:  # removed by its last user in the meantime
        return None
    if _taken(lock) and _is_still_there(folder, lock):
        return lock
    os.close(lock)
    return None


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _is_still_there(folder: Path, lock: int) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), folder.stat())
    except FileNotFoundError:
        return False
