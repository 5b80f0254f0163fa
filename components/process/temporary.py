"""Temporary folders that a killed process does not leave forever: the next one removes them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from switchyard.components.errors import UserError, first_line

PREFIX = "switchyard-run-"
# A new folder is not locked yet.
_NEW_SECONDS = 60.0


class TemporaryFolder:
    """A temporary folder, locked while this process or a fork of it lives; the first one of a process removes abandoned ones.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        """Creates the folder. Raises UserError or OSError if it cannot be created."""
        check_temporary()
        _remove_abandoned_once()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock: int | None = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):  # a file system without locks: the folder may be removed while it is used after a minute
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Removes the folder with its content, as far as possible; idempotent."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = None


def check_temporary() -> None:
    """Raises UserError if no folder for temporary files can be written to."""
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise UserError(
            f"TMPDIR: no folder for temporary files can be written to: {first_line(error)}; set TMPDIR to one that can, or free "
            "space there"
        ) from None


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yields the path of a `TemporaryFolder`, which is removed at the end."""
    folder = TemporaryFolder()
    try:
        yield folder.path
    finally:
        folder.remove()


@contextmanager
def contain_temporary_files() -> Iterator[None]:
    """Makes this process and those that it starts write temporary files to a `TemporaryFolder`, which is removed at the end.

    For a process that runs one command: files of a thread beside it would be removed, too.
    """
    given, found = os.environ.get("TMPDIR"), tempfile.tempdir
    with temporary_folder() as folder:
        os.environ["TMPDIR"], tempfile.tempdir = str(folder), str(folder)
        try:
            yield
        finally:
            os.environ.pop("TMPDIR", None)
            if given is not None:
                os.environ["TMPDIR"] = given
            tempfile.tempdir = found


@cache
def _remove_abandoned_once() -> None:
    remove_abandoned()


def remove_abandoned() -> None:
    """Removes the folders of killed processes of this user."""
    with os.scandir(tempfile.gettempdir()) as entries:
        found = [e for e in entries if e.name.startswith(PREFIX)]
    for entry in found:
        with suppress(OSError):  # removed in the meantime, or locked
            facts = entry.stat(follow_symlinks=False)
            if not entry.is_dir(follow_symlinks=False) or facts.st_uid != os.geteuid():
                continue
            if time.time() - facts.st_mtime < _NEW_SECONDS:
                continue
            folder = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path, ignore_errors=True)
            finally:
                os.close(folder)
