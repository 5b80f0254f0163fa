"""Facts about other processes, of Linux' `/proc`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, by a signal or a debugger, and does not answer."""
    try:
        # The state follows the name, which may hold any character.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def has_open(pid: int, descriptor: int) -> bool:
    """Whether a process has a file open: where a container or another machine shares the folder, its ids are others' here."""
    wanted = os.fstat(descriptor)
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # closed in the meantime
                if os.path.samestat(Path(f"/proc/{pid}/fd/{number}").stat(), wanted):
                    return True
    return False
