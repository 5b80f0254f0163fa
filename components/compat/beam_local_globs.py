"""Beam 2.77 looks for a local file that it has just written by a glob in which the folder's own name is pasted.

In a folder named `[v1]` nothing matches then, and there is no way to quote ("There is no way to quote meta-characters", its
`translate_pattern`). With the patch the folders that are there are taken as they stand, and only what follows is a pattern.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from apache_beam.io.filesystem import MatchResult
from apache_beam.io.localfilesystem import LocalFileSystem

from switchyard.components.compat.patch import Private
from switchyard.components.text.escaping import MAGIC, split_pattern

PRIVATE = Private(
    "apache-beam",
    ("2.77",),
    ("apache_beam.io.filesystem:FileSystem.match", "apache_beam.io.localfilesystem:LocalFileSystem._list"),
    "https://github.com/apache/beam/blob/v2.77.0/sdks/python/apache_beam/io/filesystem.py",
)


def install() -> None:
    """Patches `LocalFileSystem.match`, in this process and those forked from it. Calling it again changes nothing."""
    original: Callable[..., list[Any]] = LocalFileSystem.match
    if hasattr(original, "__wrapped__") or not PRIVATE.fits():
        return

    @functools.wraps(original)
    def match(self: LocalFileSystem, patterns: Sequence[str], limits: Sequence[int | None] | None = None) -> list[Any]:
        found = []
        for pattern, limit in zip(patterns, limits or [None] * len(patterns), strict=True):
            folder, rest = split_pattern(pattern)
            if MAGIC.search(folder):
                found.append(_below(self, pattern, folder, rest, limit))
            else:
                found += original(self, [pattern], [limit])
        return found

    LocalFileSystem.match = match


def _below(files: LocalFileSystem, pattern: str, folder: str, rest: str, limit: int | None) -> MatchResult:
    if not rest:
        return MatchResult(pattern, [files.metadata(folder)])
    wanted = re.compile(files.translate_pattern(rest)).match
    inside = [found for found in files._list(folder) if wanted(found.path[len(folder) :].lstrip("/"))]
    return MatchResult(pattern, inside[:limit])
