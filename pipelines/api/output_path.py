"""A command's output: whether it can be written, looked at before the work is done, and what is left when it is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from switchyard.components.errors import ArgumentError, UserError


def check_output(path: Path, argument: str = "output", *, is_folder: bool = False) -> None:
    """Looks at a place for a file, or for a folder, which may be several levels deep and is made later.

    Args:
        path: the place.
        argument: its name, for errors.
        is_folder: it is a folder.

    Raises:
        ArgumentError: nothing can be written there.
    """
    place = path.absolute()
    if place.is_dir() != is_folder and os.path.lexists(place):
        raise ArgumentError(argument, f"{path} is a {'folder' if place.is_dir() else 'file'}. Give another place.")
    parent = place.parent
    if is_folder:
        parent = next(p for p in (place, *place.parents) if os.path.lexists(p))
    if not parent.is_dir():
        raise ArgumentError(argument, f"there is no folder {parent}. Make it first.")
    if not os.access(parent, os.W_OK | os.X_OK) or (place.is_file() and not os.access(place, os.W_OK)):
        raise ArgumentError(argument, f"not allowed to write {path}. Choose another place, or change its permissions.")


@contextmanager
def removed_when_refused(parts: Path) -> Iterator[None]:
    """What is refused is refused again: its parts are of no use, and would be in the way of the input that is put right."""
    try:
        yield
    except UserError:
        shutil.rmtree(parts, ignore_errors=True)
        raise
