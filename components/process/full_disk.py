"""Detects a full disk from the errors of Python, TensorFlow, Beam, SQLite and Arrow."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from pathlib import Path

from switchyard.components.errors import DataGateError, UserError, error_chain, text_of

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PATTERN = re.compile(r"[Nn]o space left on device|Disk quota exceeded|database or disk is full|File too large")
_PATH = re.compile(r"/[^\s;:'\"\]\)]+")
# Free space below this counts as none: file systems reserve some.
_NOTHING_BYTES = 64 << 10
_RUN_AGAIN = (
    "Free some space there, or use another folder (--workspace; TMPDIR for temporary files), and run again: finished stages are "
    "kept."
)
_written: set[Path] = set()


def note_written(folder: Path) -> None:
    """Notes a folder that this process writes to, for errors without a path: SQLite's, and those of an open file."""
    _written.add(folder)


def full_disk(error: BaseException, *places: Path, then: str = _RUN_AGAIN) -> str | None:
    """Returns a message for the user when a full disk caused an error, else None.

    Args:
        error: the error, whose chain of causes is searched.
        places: paths that were written to, for errors without a path.
        then: the end of the message: what to do, and what happens after that.
    """
    for seen in error_chain(error):
        if isinstance(seen, OSError) and seen.errno in _CODES:
            return _sentence(str(seen.filename or seen.strerror), _file_of(seen), places, then, limited=seen.errno == errno.EFBIG)
        # UserError and DataGateError describe problems with the user's input, so their texts are not searched.
        text = "" if isinstance(seen, UserError | DataGateError) else text_of(seen)
        if match := _PATTERN.search(text):
            path = next((p for p in _PATH.findall(text) if os.path.isdir(os.path.dirname(p))), None)
            return _sentence(path or match.group(), path, places, then, limited=match.group() == "File too large")
    return None


def disk_is_full(*places: Path) -> str | None:
    """Returns the message for the first of `places`, or the temporary folder, without free space; None when all have some."""
    for place in (*places, *_written, Path(tempfile.gettempdir())):
        if _is_full(place):
            return _sentence(str(place), str(place), (), _RUN_AGAIN, limited=False)
    return None


def _sentence(what: str, path: str | None, places: tuple[Path, ...], then: str, *, limited: bool) -> str:
    known = [Path(path)] if path else [*places, *_written, Path(tempfile.gettempdir())]
    mounts = dict.fromkeys(_mount(p) for p in known)
    full = [m for m in mounts if _is_full(m)] or list(mounts)
    where = " or ".join(f"{m} ({_free(m)})" for m in full)
    found = f"No space is left on the file system at {where}."
    if limited:
        found = f"A file reached its largest allowed size: {where} has no space left for it, or ulimit -f limits it."
    return f"the disk is full ({what}). {found} {then}"


def _file_of(error: OSError) -> str | None:
    return str(error.filename) if isinstance(error.filename, str | Path) and Path(error.filename).is_absolute() else None


def _is_full(place: Path) -> bool:
    there = os.statvfs(_existing(place))
    if there.f_blocks == 0:  # /proc and the like hold no files of ours
        return False
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
