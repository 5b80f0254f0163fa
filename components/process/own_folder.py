"""Creates a folder with a fixed name in the temporary folder, where any user may create that name first."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def own_folder(name: str, parent: str | None = None) -> Path | None:
    """Returns the folder, created if missing; None when it belongs to another user or others can write to it.

    Args:
        name: the folder's name.
        parent: where it is; default: the temporary folder.
    """
    folder = Path(parent or tempfile.gettempdir()) / name
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()  # does not follow links
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            return None
    return folder
