"""Makes TensorFlow load SavedModels from folders with glob characters in their names.

TensorFlow 2.21 treats the path of a SavedModel's variables, and every path that it looks up, as a glob. It matches the path of
the variables in C++, so below a folder named `[v1]` it finds none. The pattern cannot be escaped: the match is opened by the
pattern's text. With the patch, the variables are reached through a link whose path has no special characters, and in lookups
from Python existing folders match literally.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from switchyard.components.compat.patch import Private
from switchyard.components.text.escaping import pattern_of

# Not `*` and `?`: a pattern with them also matches its own text as a name.
_FINDS_SOMETHING_ELSE = re.compile(r"[\[\\]")
PRIVATE = Private(
    "tensorflow",
    ("2.21",),
    (
        "tensorflow.python.saved_model.path_helpers:get_variables_path",
        "tensorflow.python.lib.io._pywrap_file_io:GetMatchingFiles",
        "tensorflow.python.lib.io.file_io:get_matching_files_v2",
    ),
    "https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/python/saved_model/path_helpers.py",
)


def install() -> None:
    """Patches TensorFlow in this process and its forks. Idempotent."""
    from tensorflow.python.lib.io import _pywrap_file_io
    from tensorflow.python.saved_model import path_helpers

    found: Callable[[bytes], list[bytes]] = _pywrap_file_io.GetMatchingFiles
    place: Callable[[str], str] = path_helpers.get_variables_path
    if hasattr(place, "__wrapped__") or not PRIVATE.fits():
        return

    @functools.wraps(found)
    def matching(pattern: bytes) -> list[bytes]:
        return found(os.fsencode(pattern_of(os.fsdecode(pattern))))

    @functools.wraps(place)
    def get_variables_path(export_dir: str) -> str:
        path = place(export_dir)
        if not _FINDS_SOMETHING_ELSE.search(path) or "://" in path:
            return path
        folder, name = os.path.split(path)
        return os.path.join(_link(os.path.realpath(folder)), name)

    _pywrap_file_io.GetMatchingFiles = matching
    path_helpers.get_variables_path = get_variables_path


@functools.cache
def _link(folder: str) -> str:
    # The link lives as long as the process: a graph can restore its variables when it runs.
    parent = tempfile.gettempdir()
    place = Path(tempfile.mkdtemp(prefix="switchyard-link-", dir=None if not _FINDS_SOMETHING_ELSE.search(parent) else "/tmp"))  # noqa: S108
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    (place / "variables").symlink_to(folder)
    return str(place / "variables")
