"""Keeps the files of a journal's operations with the journal, since their sources may be deleted before they are sent."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

_FILES = "files"


def with_its_files(operation: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns an operation with its files kept in the journal and paths relative to it; unchanged if a file cannot be kept."""
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
    """Makes a hard link, which takes no space, or a copy across file systems."""
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _path_in(operation: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Returns the key of an operation's path and the mapping that holds it; the mapping is None without a path."""
    if operation["op"] == "register":
        return "bundle", operation["model"]
    return "path", operation if operation["op"] in ("file", "file_as") else None


def local_files(operation: dict[str, Any]) -> list[str]:
    """Returns the paths of the files that an operation sends."""
    key, place = _path_in(operation)
    return [] if place is None else [place[key]]


def located(operation: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns an operation of the journal in `folder` with absolute paths."""
    key, place = _path_in(operation)
    if place is None:
        return operation
    named = {**place, key: os.path.join(folder, place[key])}
    return {**operation, "model": named} if place is not operation else named
