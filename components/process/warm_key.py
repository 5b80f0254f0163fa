"""What decides whether a forked process is equal to a fresh one: all that a process inherits, or reads while it imports.

A variable that a library may read at import is unknown, so every variable counts but those of a terminal or a shell.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

# They differ between two terminals, or two commands in one, and no library reads them at import.
_OF_A_TERMINAL = frozenset((
    "COLUMNS", "LINES", "OLDPWD", "PWD", "SHLVL", "WINDOWID", "_",
    "DBUS_SESSION_BUS_ADDRESS", "GPG_TTY", "SSH_AUTH_SOCK", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY",
    "STY", "TERM_SESSION_ID", "TMUX", "TMUX_PANE", "WINDOW", "XDG_SESSION_ID",
))  # fmt: skip
# Of /proc/self/status: users, groups, rights, processors and memory nodes.
_STATUS = ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Cap", "Cpus_allowed_list", "Mems_allowed_list", "SigBlk")
# Libraries' settings of the user, which they read while they are imported.
_SETTINGS = ("~/.keras/keras.json", "~/.config/matplotlib/matplotlibrc", "~/.matplotlib/matplotlibrc")
# `/dev/fd/63`, by which a shell gives the output of a command: a fork has the first three descriptors only.
_DESCRIPTOR = re.compile(r"/(dev|proc/[^/]+)/fd/(?![012]\b)")


def refusal(environment: Mapping[str, str]) -> str | None:
    """Returns why a forked process would differ from this one; None if it would not."""
    if sys.platform != "linux":
        return "a system without Linux's process descriptors"
    options = sys.orig_argv[1:2]
    different = {
        # Its fork server is not known, see `compat.fork_server`.
        "this version of Python": sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)),
        "options of the interpreter": any(option.startswith("-") and option != "-m" for option in options),
        "an argument that is an open file": any(map(_DESCRIPTOR.search, sys.argv[1:])),
        "a relative path in PYTHONPATH": any(
            path and not Path(path).is_absolute() for path in environment.get("PYTHONPATH", "").split(os.pathsep)
        ),
        "Matplotlib's settings in the working directory": os.path.exists("matplotlibrc"),
    }
    try:
        for descriptor in (0, 1, 2):
            os.fstat(descriptor)
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return str(error)
    return next((why for why, does in different.items() if does), None)


def digest(environment: Mapping[str, str]) -> str:
    """Returns the digest of all that a process with these variables inherits or reads. Raises OSError without `/proc`."""
    return hashlib.sha256("\n".join([*_inherited(environment), installed()]).encode("utf-8", "surrogateescape")).hexdigest()[:24]


def installed() -> str:
    """Returns a digest of the installed packages, the lock and the settings that libraries read at import."""
    found = [*_packages(), *(f"{path}:{stamp(Path(path).expanduser())}" for path in _SETTINGS)]
    return hashlib.sha256("\n".join(found).encode("utf-8", "surrogateescape")).hexdigest()


def _inherited(environment: Mapping[str, str]) -> Iterator[str]:
    yield sys.executable
    yield sys.version
    yield Path("/proc/sys/kernel/random/boot_id").read_text()  # a folder that two machines share
    yield str(sys.modules["switchyard"].__file__)
    yield json.dumps({name: value for name, value in sorted(environment.items()) if name not in _OF_A_TERMINAL})
    yield from (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(_STATUS))
    yield from (Path(f"/proc/self/{name}").read_text() for name in ("limits", "cgroup", "oom_score_adj"))
    yield from (str(Path(f"/proc/self/ns/{name}").readlink()) for name in sorted(os.listdir("/proc/self/ns")))
    root = Path("/").stat()
    yield f"{root.st_dev} {root.st_ino} {os.getpriority(os.PRIO_PROCESS, 0)} {os.sched_getscheduler(0)}"


def _packages() -> Iterator[str]:
    # A script's folder and, in a clone, the working directory come first; the modules of a warm process come from the others.
    script = os.path.dirname(os.path.realpath(sys.argv[0]))
    folders = [Path(path) for path in dict.fromkeys(sys.path) if Path(path).is_absolute() and path != script]
    for folder in filter(Path.is_dir, folders):
        names = sorted(os.listdir(folder))
        if folder.name in ("site-packages", "dist-packages"):
            found = [name for name in names if name.endswith((".dist-info", ".egg-info", ".egg-link", ".pth"))]
            yield from (f"{name}:{stamp(folder / name)}:{stamp(folder / name / 'RECORD')}" for name in found)
        else:  # a new module may hide a library's
            found = [name for name in names if name.endswith(".py") or (folder / name / "__init__.py").exists()]
            yield f"{folder}:{found}"
    locks = Path(str(sys.modules["switchyard"].__file__)).resolve().parents[1].glob("requirements*.lock")
    yield from (f"{lock}:{stamp(lock)}" for lock in sorted(locks))


def stamp(path: str | Path) -> tuple[int, ...]:
    """Returns when a file was modified (ns), its size and its inode; zeros without the file."""
    try:
        # A third of the time of `Path.stat`, for ten thousand files before each fork.
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
