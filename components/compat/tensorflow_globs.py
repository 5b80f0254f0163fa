"""TensorFlow 2.21 takes the path of a SavedModel's variables, and every path that is looked for, for a glob.

It finds the variables of a SavedModel by matching their path as a pattern, in C++: below a folder named `[v1]` there are none.
There is no way to quote: what matches is opened by the text of the pattern. With the patch the variables are reached by a link
whose path holds nothing that means something, and in what Python looks for the folders that are there stand for themselves.
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

# Of `*` and `?` the pattern matches the name itself, too.
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
    """Patches TensorFlow, in this process and those forked from it. Calling it again changes nothing."""
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
    # For as long as the process: a graph may restore its variables when it is run.
    parent = tempfile.gettempdir()
    place = Path(tempfile.mkdtemp(prefix="switchyard-link-", dir=None if not _FINDS_SOMETHING_ELSE.search(parent) else "/tmp"))  # noqa: S108
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    (place / "variables").symlink_to(folder)
    return str(place / "variables")
