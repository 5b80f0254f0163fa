"""The files that a journal's operations send, kept with the journal: what they come from may be gone when they are sent."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

_FILES = "files"


def with_its_files(operation: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Keeps the files with the journal; paths are then relative to it. One that cannot be kept is named as it was."""
    key, place = _path_in(operation)
    if place is None or not os.path.exists(place[key]):
        return operation
    try:
        (folder / _FILES).mkdir(exist_ok=True)
        kept = Path(tempfile.mkdtemp(dir=folder / _FILES)) / os.path.basename(place[key].rstrip("/"))
        if os.path.isdir(place[key]):
            shutil.copytree(place[key], kept, copy_function=_link)
        else:
            _link(place[key], str(kept))
    except OSError:
        return operation
    named = {**place, key: str(kept.relative_to(folder))}
    return {**operation, "model": named} if place is not operation else named


def _link(source: str, target: str) -> str:
    """A second name costs no space; on another file system it is a copy."""
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _path_in(operation: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Returns the key of an operation's path, and the mapping that it is in; None when it has none."""
    if operation["op"] == "register":
        return "bundle", operation["model"]
    return "path", operation if operation["op"] in ("file", "file_as") else None


def local_files(operation: dict[str, Any]) -> list[str]:
    """Returns the paths of what an operation sends."""
    key, place = _path_in(operation)
    return [] if place is None else [place[key]]


def located(operation: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns an operation of a journal in `folder` with absolute paths."""
    key, place = _path_in(operation)
    if place is None:
        return operation
    named = {**place, key: os.path.join(folder, place[key])}
    return {**operation, "model": named} if place is not operation else named
