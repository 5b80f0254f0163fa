"""The versions of Switchyard's own packages, which the packages that users add must accept.

`constraints-3.11.txt` and `constraints-3.12.txt` (3.12 and later) are made from the two locks by `make lock`.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

_FOLDER = Path(__file__).parent


def constraints(*, installed: bool = True) -> dict[str, str]:
    """Returns the version of each of Switchyard's packages, extras included: normalized name -> version.

    It is the installed one, else the lock's: an image for TPUs, for example, has another PyTorch than the locks.

    Args:
        installed: False: the lock's versions, with which the tests ran, whatever is installed.
    """
    from packaging.requirements import Requirement

    name = "constraints-3.11.txt" if sys.version_info[:2] == (3, 11) else "constraints-3.12.txt"
    found = {}
    for line in (_FOLDER / name).read_text(encoding="utf-8").splitlines():
        locked = Requirement(line)
        if locked.marker is None or locked.marker.evaluate():
            package = canonical(locked.name)
            there = installed_version(package) if installed else None
            found[package] = public(there) if there else next(iter(locked.specifier)).version
    return found


def canonical(name: str) -> str:
    """Returns the normalized name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def public(version: str) -> str:
    """Returns a version without its local label: `2.10.0` of `2.10.0+cpu`, which most registries do not have."""
    return version.partition("+")[0]


def installed_version(package: str) -> str | None:
    """Returns the installed version of a distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
