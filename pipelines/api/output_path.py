"""Checks a command's output path before the work starts, and cleans up after a refusal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from switchyard.components.errors import ArgumentError, UserError


def check_output(path: Path, argument: str = "output", *, is_folder: bool = False) -> None:
    """Checks that a file, or a folder with missing parents, can be created at a path.

    Args:
        path: the path.
        argument: name of the argument, for errors.
        is_folder: whether the path is for a folder.

    Raises:
        ArgumentError: the path cannot be written.
    """
    place = path.absolute()
    if place.is_dir() != is_folder and os.path.lexists(place):
        raise ArgumentError(argument, f"{path} is a {'folder' if place.is_dir() else 'file'}. Give another place.")
    parent = place.parent
    if is_folder:
        parent = next(p for p in (place, *place.parents) if os.path.lexists(p))
    if not parent.is_dir():
        raise ArgumentError(argument, f"the folder {parent} does not exist; create it first.")
    if not os.access(parent, os.W_OK | os.X_OK) or (place.is_file() and not os.access(place, os.W_OK)):
        raise ArgumentError(argument, f"not allowed to write {path}. Choose another place, or change its permissions.")


@contextmanager
def removed_when_refused(parts: Path) -> Iterator[None]:
    """Removes the parts on a UserError: a retry would fail again, and they would block a corrected input."""
    try:
        yield
    except UserError:
        shutil.rmtree(parts, ignore_errors=True)
        raise
