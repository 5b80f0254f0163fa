"""Finds the installed distributions that the user's code imports."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from switchyard.components.user_code.loading import imported_names

# Installed with the code that loads a bundle.
_OURS = "switchyard"


def requirements(folders: Sequence[Path]) -> dict[str, str]:
    """Returns the distributions that Python files import: name -> version, sorted; without Python's and the folders' own modules.

    An import of what is not installed is left out: the code has run without it.

    Args:
        folders: folders with Python files, searched recursively; each may be missing.
    """
    files = [f for folder in folders for f in sorted(folder.rglob("*.py"))]
    own = {part.removesuffix(".py") for folder in folders for f in folder.rglob("*.py") for part in f.relative_to(folder).parts}
    names = {name for f in files for name in imported_names(ast.parse(f.read_bytes(), filename=str(f)))}
    known = metadata.packages_distributions()
    found: set[str] = set()
    for name in names:
        module = name.partition(".")[0]
        if module not in own and module not in sys.stdlib_module_names:
            found |= _distributions(name, known)
    return {name: metadata.version(name) for name in sorted(found, key=canonical) if canonical(name) != _OURS}


def _distributions(name: str, known: Mapping[str, Sequence[str]]) -> set[str]:
    """Returns the distributions of a module; of a namespace that several share, those that have the module itself."""
    several = set(known.get(name.partition(".")[0], ()))
    if len(several) < 2:
        return several
    path = name.replace(".", "/")
    return {d for d in several if any(str(f).startswith((f"{path}.py", f"{path}/")) for f in metadata.files(d) or ())}


def canonical(name: str) -> str:
    """Returns the normalized name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
