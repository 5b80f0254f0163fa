"""The packages of user code: those that the config lists as `dependencies`, and those that the code imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from switchyard.components.errors import UserError
from switchyard.components.user_code.constraints import canonical, constraints, installed_version, public

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Installed with the code that loads a bundle.
_OURS = "switchyard"
_ADD = "switchyard dependencies add"


def requirement(text: str) -> Requirement:
    """Parses a package with or without a version, such as `transformers` or `transformers==4.57.1`.

    Raises:
        ValueError: it is none, or has a URL, an environment marker or extras.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        found = Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(f"{text!r} is not a package such as transformers==4.57.1: {str(error).splitlines()[0]}") from None
    if found.url or found.marker:
        raise ValueError(f"{text!r} has a URL or an environment marker; write name==version")
    if found.extras:
        raise ValueError(f"{text!r} has the extra {sorted(found.extras)[0]!r}; list the packages that it brings instead")
    if canonical(found.name) == _OURS:
        raise ValueError(f"{text!r} is Switchyard itself; remove it")
    return found


def pinned(texts: Sequence[str]) -> tuple[str, ...]:
    """Returns the config's `dependencies` as `name==version`.

    Raises:
        ValueError: an entry has no exact version, see also `requirement`, or a package is listed twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        parsed = requirement(text)
        [only] = parsed.specifier if len(parsed.specifier) == 1 else [None]
        if only is None or only.operator != "==" or only.version.endswith(".*"):
            raise ValueError(f"{text!r} has no exact version; write {parsed.name}==VERSION, or run: {_ADD} {parsed.name}")
        if canonical(parsed.name) in found:
            raise ValueError(f"lists {parsed.name!r} twice; remove one")
        found[canonical(parsed.name)] = f"{parsed.name}=={only.version}"
    return tuple(found.values())


def check_installed(listed: Sequence[str]) -> None:
    """Checks that the packages are installed in exactly these versions.

    Args:
        listed: `name==version` of each, see `pinned`.

    Raises:
        UserError: one is not; the message has the command that installs it.
    """
    wrong = {}
    for text in listed:
        package = requirement(text)
        version = installed_version(package.name)
        if version is None or not package.specifier.contains(version, prereleases=True):
            wrong[text] = f"{text} is not installed" if version is None else f"{text} is listed, and {version} is installed"
    if not wrong:
        return
    own = constraints()
    for text in wrong:
        name = canonical(requirement(text).name)
        if name in own and not requirement(text).specifier.contains(own[name], prereleases=True):
            raise UserError(
                f"dependencies: {text} is listed, and Switchyard runs with {own[name]}; write that version, or remove it"
            )
    raise UserError(
        f"dependencies: {', '.join(wrong.values())}; run: {_ADD} {' '.join(wrong)} (on a cluster they belong into its image: "
        f'make image DEPENDENCIES="{" ".join(listed)}")'
    )


def requirements(folders: Sequence[Path], listed: Sequence[str] = ()) -> dict[str, str]:
    """Returns the distributions that user code needs: name -> version, sorted; those listed, and those that Python files import.

    A listed version stays as it is written; others are the installed ones, without local labels.

    Python's and the folders' own modules are left out, and an import of what is not installed: the code has run without it.

    Args:
        folders: folders with Python files, searched recursively; each may be missing.
        listed: the config's `dependencies`.
    """
    files = [f for folder in folders for f in sorted(folder.rglob("*.py"))]
    own = {part.removesuffix(".py") for folder in folders for f in folder.rglob("*.py") for part in f.relative_to(folder).parts}
    names = {name for f in files for name in imported_names(ast.parse(f.read_bytes(), filename=str(f)))}
    known = metadata.packages_distributions()
    pins = {parsed.name: next(iter(parsed.specifier)).version for parsed in map(requirement, listed)}
    found = set(pins)
    named = set(map(canonical, found))
    for name in names:
        module = name.partition(".")[0]
        if module not in own and module not in sys.stdlib_module_names:
            found |= {d for d in _distributions(name, known) if canonical(d) not in named}
    return {
        name: pins.get(name) or public(metadata.version(name))
        for name in sorted(found, key=canonical)
        if canonical(name) != _OURS
    }


def imported_names(tree: ast.Module) -> set[str]:
    """Returns the dotted names that a syntax tree imports, at any place; of `from a import b` both `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{a.name}" if node.module else a.name for a in node.names)}
    return names - {""}


def _distributions(name: str, known: Mapping[str, Sequence[str]]) -> set[str]:
    """Returns the distributions of a module; of a namespace that several share, those that have the module itself."""
    several = set(known.get(name.partition(".")[0], ()))
    if len(several) < 2:
        return several
    path = name.replace(".", "/")
    return {d for d in several if any(str(f).startswith((f"{path}.py", f"{path}/")) for f in metadata.files(d) or ())}
