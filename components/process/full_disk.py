"""A full disk by its many names: Python's errors, and what TensorFlow, Beam, SQLite and Arrow make of them."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from pathlib import Path

from switchyard.components.errors import DataGateError, UserError, error_chain, text_of

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAYS = re.compile(r"[Nn]o space left on device|Disk quota exceeded|database or disk is full|File too large")
_PATH = re.compile(r"/[^\s;:'\"\]\)]+")
# Less than this is none: file systems keep some for themselves.
_NOTHING_BYTES = 64 << 10


def full_disk(error: BaseException, *places: Path) -> str | None:
    """Returns what to tell a person when a full disk is behind an error, None when something else is.

    Args:
        error: it, or what came of it.
        places: what was written to, for errors that do not say.
    """
    for seen in error_chain(error):
        if isinstance(seen, OSError) and seen.errno in _CODES:
            return _sentence(str(seen.filename or seen.strerror), _file_of(seen), places, limited=seen.errno == errno.EFBIG)
        # What is wrong with a person's own input is said in words of ours.
        text = "" if isinstance(seen, UserError | DataGateError) else text_of(seen)
        if said := _SAYS.search(text):
            path = next((p for p in _PATH.findall(text) if os.path.isdir(os.path.dirname(p))), None)
            return _sentence(path or said.group(), path, places, limited=said.group() == "File too large")
    return None


def disk_is_full(*places: Path) -> str | None:
    """Returns the same of the first of `places`, or of the temporary folder, that has no space left; None when all have."""
    for place in (*places, Path(tempfile.gettempdir())):
        if _is_full(place):
            return _sentence(str(place), str(place), (), limited=False)
    return None


def _sentence(what: str, path: str | None, places: tuple[Path, ...], *, limited: bool) -> str:
    known = [Path(path)] if path else [*places, Path(tempfile.gettempdir())]
    mounts = dict.fromkeys(_mount(p) for p in known)
    full = [m for m in mounts if _is_full(m)] or list(mounts)
    where = " or ".join(f"{m} ({_free(m)})" for m in full)
    found = f"No space is left on the file system at {where}."
    if limited:
        found = f"A file has reached the largest size allowed: no space is left for it at {where}, or ulimit -f is in its way."
    return (
        f"the disk is full ({what}). {found} Free some space there, or use another folder (--workspace; TMPDIR for temporary "
        "files), and run again: finished stages are kept."
    )


def _file_of(error: OSError) -> str | None:
    return str(error.filename) if isinstance(error.filename, str | Path) and Path(error.filename).is_absolute() else None


def _is_full(place: Path) -> bool:
    there = os.statvfs(_existing(place))
    return there.f_bavail * there.f_frsize < _NOTHING_BYTES or (there.f_files > 0 and there.f_favail == 0)


def _free(mount: Path) -> str:
    there, usage = os.statvfs(mount), shutil.disk_usage(mount)
    files = ", no more files" if there.f_files > 0 and there.f_favail == 0 else ""
    return f"{usage.free / 1e6:.1f} of {usage.total / 1e6:.1f} MB free{files}"


def _mount(path: Path) -> Path:
    there = _existing(path)
    return next(p for p in (there, *there.parents) if os.path.ismount(p))


def _existing(path: Path) -> Path:
    absolute = Path(os.path.realpath(path))
    return next(p for p in (absolute, *absolute.parents) if p.exists())
