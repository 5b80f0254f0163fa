"""Makes Beam find its local output in folders with glob characters in their names.

Beam 2.77 finds local files that it has written by a glob that contains the folder's name. In a folder named `[v1]` it matches
nothing, and globs cannot be escaped ("There is no way to quote meta-characters", its `translate_pattern`). With the patch,
existing folders match literally, and only the rest is a pattern.
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
    """Patches `LocalFileSystem.match` in this process and its forks. Idempotent."""
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
