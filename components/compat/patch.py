"""Declares the private names of a library that a module uses or patches, and the versions they are tested with."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import metadata

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Private:
    """Private names of a library, which can change without notice. Each module of this package declares one, `PRIVATE`.

    Attributes:
        library: name of the distribution.
        versions: prefixes of the tested versions, such as `2.77`.
        targets: `module:name` of each replaced or used object; `tests/stages/test_compat.py` fails when one changes.
        upstream: URL of the library's source.
    """

    library: str
    versions: tuple[str, ...]
    targets: tuple[str, ...]
    upstream: str

    def fits(self) -> bool:
        """Whether the installed version is a tested one. Logs a warning if not; the caller then skips its patch."""
        installed = _installed(self.library)
        known = any(installed == v or installed.startswith(f"{v}.") for v in self.versions)
        if not known:
            _log.warning("%s %s: skipping a patch for %s: %s", self.library, installed, ", ".join(self.versions), self.targets[0])
        return known


def _installed(library: str) -> str:
    """Returns the version of a library; a serving image has TensorFlow's build for CPUs, under its own name."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return metadata.version(f"{library}-cpu")
