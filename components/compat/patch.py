"""What is used of a library that it does not make public: which names, of which versions, and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import metadata

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Private:
    """Names of a library that it may change without a word. A module of this package has one, `PRIVATE`.

    Attributes:
        library: as its distribution is called.
        versions: that this was written and tested for, by their first numbers: `2.77`.
        targets: `module:name` of what is replaced or used; `tests/stages/test_compat.py` fails when one changes.
        upstream: where the library has it.
    """

    library: str
    versions: tuple[str, ...]
    targets: tuple[str, ...]
    upstream: str

    def fits(self) -> bool:
        """Whether the installed version is one of these. A patch is left out for others, and the log says so."""
        installed = metadata.version(self.library)
        known = any(installed == v or installed.startswith(f"{v}.") for v in self.versions)
        if not known:
            _log.warning(
                "%s %s: a patch for %s is left out: %s", self.library, installed, ", ".join(self.versions), self.targets[0]
            )
        return known
