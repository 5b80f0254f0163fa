"""`manifest.json` in a model bundle: the SHA-256 of every file. Its own digest is a tag of the registered version.

A mismatch is refused before any file is opened. A manifest alone shows that a bundle is complete, not its origin: an attacker
who changes a file can rewrite the manifest. Its origin is shown by a digest stored elsewhere (the registry, the run).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from switchyard.components.errors import UserError
from switchyard.components.signing.signatures import UNSIGNED

MANIFEST = "manifest.json"
_PROPERTY = "digest"
# Format version of `bundle.json`; raised when older bundles can no longer be read.
FORMAT = 2
_DIGEST = re.compile(r"[0-9a-f]{64}")


def write_manifest(folder: Path) -> str:
    """Writes the manifest of an MLflow Model and returns its digest."""
    files = {name: _digest_of(folder / name) for name in _files(folder)}
    content = json.dumps({"format": FORMAT, "files": files}, indent=1, sort_keys=True).encode()
    (folder / MANIFEST).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def own_digest(folder: Path) -> str | None:
    """Returns the digest of a folder's own manifest, or None without one."""
    file = folder / MANIFEST
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def keep_digest(artifact: Any, digest: str) -> None:
    """Stores the digest in a run's model artifact, for later stages to compare."""
    artifact.set_string_custom_property(_PROPERTY, digest)


def digest_of(artifact: Any) -> str | None:
    """Returns the digest stored in a model artifact, or None."""
    return artifact.get_string_custom_property(_PROPERTY) or None


def verify(folder: Path, digest: str | None = None) -> None:
    """Checks a folder against its manifest and, with `digest`, the manifest against the digest.

    Raises:
        UserError: they do not match; the message names the file.
    """
    content = _content(folder)
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"model: {MANIFEST} was changed: its digest is not the registered {digest}. {_NEXT}")
    for name, wrong in compared(folder):
        if wrong:
            raise UserError(f"model: {name!r} {wrong}. {_NEXT}")


def compared(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields each file and what is wrong with it, empty if it is the manifest's: missing and added files, then all others.

    Raises:
        UserError: the folder has no manifest, an invalid one, or files that are not regular.
    """
    wanted = _parse(_content(folder))
    found = _files(folder)
    for name in sorted(found ^ wanted.keys()):
        yield name, "is missing" if name in wanted else "was added: the manifest does not have it"
    for name in sorted(found & wanted.keys()):
        yield name, "" if _digest_of(folder / name) == wanted[name] else "was changed: its digest is not the manifest's"


_NEXT = "None of its files was opened; use the registered version, or train again."


def _content(folder: Path) -> bytes:
    file = folder / MANIFEST
    try:
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise UserError(f"model: {MANIFEST!r} is not a regular file. {_NEXT}")
        return file.read_bytes()
    except OSError:
        raise UserError(
            f"model: {folder} is not a Switchyard model bundle (an MLflow Model with {MANIFEST}), or was made by an older "
            "version: train again."
        ) from None


def _parse(content: bytes) -> dict[str, str]:
    try:
        files = json.loads(content)["files"]
        good = all(isinstance(n, str) and _DIGEST.fullmatch(d) for n, d in files.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        good = False
    if not good:
        raise UserError(f"model: {MANIFEST} is not a list of files and digests. {_NEXT}")
    return dict(files)


def check_regular(folder: Path) -> None:
    """Raises UserError for a link or another special file in a folder, before it is copied: a pipe or a device never ends."""
    _files(folder, ignored=())


def _files(folder: Path, ignored: Collection[str] = (MANIFEST, *UNSIGNED)) -> set[str]:
    """Returns the relative names of all files, without those of the folder itself that are `ignored`.

    Raises:
        UserError: a link or another special file, which could change after the check.
    """
    found = set()
    for place, folders, files in os.walk(folder):
        here = Path(place)
        own = ignored if here == folder else ()
        folders[:] = [f for f in folders if f not in own]
        kept = [f for f in files if f not in own]
        for name in (*kept, *folders):
            path = here / name
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise UserError(f"model: {str(path.relative_to(folder))!r} is not a regular file. {_NEXT}")
        found |= {(here / name).relative_to(folder).as_posix() for name in kept}
    return found


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha256(usedforsecurity=True)).hexdigest()
