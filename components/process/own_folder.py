"""A folder with a fixed name below the temporary one, where everybody may make a folder of that name first."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def own_folder(name: str) -> Path | None:
    """Returns the folder, made when it is not there; None: what is there is not this user's, or others may write to it."""
    folder = Path(tempfile.gettempdir()) / name
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()  # of a link, and not of where it leads to
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            return None
    return folder
