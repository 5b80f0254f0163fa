"""Updates a workspace that was moved or copied: both of its databases name files by absolute paths.

The location is recorded in the workspace and checked whenever the workspace or its MLflow database is opened. At a new location
all paths are rewritten before anything is read: a copy never writes to its original and does not depend on it.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import uuid
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from switchyard.components.errors import UserError
from switchyard.components.tracking.workspace_rewrite import (
    Move,
    copied_journals,
    files_of_ones_own,
    rewrite_databases,
    rewrite_files,
    writer,
)

RECORD = "location.json"
METADATA, MLFLOW, TRACKING = "metadata.sqlite", "mlflow.db", "tracking"
_LOCKS = ("location.lock", "metadata.lock", f"{MLFLOW}.lock")
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Location:
    """The recorded location of a workspace.

    Attributes:
        root: absolute path that the workspace's records refer to.
        id: kept when the workspace is moved; a copy gets a new one.
    """

    root: str
    id: str


def is_workspace(folder: Path) -> bool:
    """Whether a folder is a workspace, not just a folder with an MLflow database."""
    made_by_us = [METADATA, "artifacts", "logs", "state"]  # workspaces older than the record
    return (folder / RECORD).exists() or all((folder / name).exists() for name in made_by_us)


def settle_in(root: Path) -> str | None:
    """Rewrites a workspace's paths to its current location; returns a message if it was elsewhere before.

    Raises:
        UserError: a run still writes to it at its old location, or it is read-only.
    """
    root = root.resolve()
    if not root.is_dir() or (known := _recorded(root)) == str(root):
        return None
    if known is None and not any((root / name).exists() for name in (METADATA, MLFLOW)):
        _record(root, Location(str(root), uuid.uuid4().hex))
        return None
    if known is not None and _same_folder(Path(known), root):
        return None  # the same folder under two names: its paths are valid under either
    if not os.access(root, os.W_OK):
        _refuse_what_moved(root)
        return None
    with ExitStack() as stack:
        _lock(root, stack)
        return _settle(root)


def _settle(root: Path) -> str | None:
    """Rewrites the paths while the locks are held, unless another process has already done so."""
    location = _read(root)
    if location and location.root == str(root):
        return None
    identity = location.id if location else uuid.uuid4().hex
    before = [location.root] if location else sorted(_places_named_in(root) - {str(root)})
    copied = False
    for place in map(Path, before):
        move = Move(place, root, copied=_holds(place, location))
        copied |= move.copied
        if not move.copied and (pid := writer(root / TRACKING)):
            raise UserError(
                f"workspace {root}: it was moved from {place} while a run writes to it (process {pid}). "
                "Stop that run or wait for its end, then try again."
            )
        copied_journals(move, root / TRACKING)
        rewrite_files(move)
        try:
            files_of_ones_own(move, [root / METADATA, root / MLFLOW])
            rewrite_databases(move, [root / METADATA, root / MLFLOW])
        except sqlite3.Error as error:
            raise UserError(
                f"workspace {root}: it was moved from {place}, and its databases cannot be updated: {error}. Stop other "
                "processes that use it, or use another --workspace."
            ) from error
    _record(root, Location(str(root), uuid.uuid4().hex if copied else identity))
    if not before:
        return None
    return f"workspace {root}: {'copied' if copied else 'moved'} from {before[0]}; its records now name this folder"


def _refuse_what_moved(root: Path) -> None:
    location = _read(root)
    before = {location.root} if location else _places_named_in(root) - {str(root)}
    if before:
        raise UserError(
            f"workspace {root}: it was moved from {min(before)}, and its databases contain that path but are not writable. "
            "Make it writable, copy it to a writable folder, or move it back."
        )


def _recorded(root: Path) -> str | None:
    location = _read(root)
    return location.root if location else None


def _read(root: Path) -> Location | None:
    try:
        found = Location(**json.loads((root / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # older than the record, not made by Switchyard, or unreadable
        return None
    return found if isinstance(found.root, str) and Path(found.root).is_absolute() else None


def _record(root: Path, location: Location) -> None:
    if not os.access(root, os.W_OK):
        return
    new = root / f"{RECORD}.{os.getpid()}"
    new.write_text(json.dumps(asdict(location)), encoding="utf-8")
    os.replace(new, root / RECORD)


def _holds(place: Path, location: Location | None) -> bool:
    """Whether the original workspace still exists, which makes this one a copy."""
    there = _read(place)
    if location and there:
        return there.id == location.id
    return location is None and any(os.path.exists(place / name) for name in (METADATA, MLFLOW))


def _same_folder(one: Path, other: Path) -> bool:
    return os.path.exists(one) and one.samefile(other)


def _lock(root: Path, stack: ExitStack) -> None:
    from filelock import FileLock, Timeout

    for name in _LOCKS:
        if (root / name).is_symlink():  # in a copy made of links; a lock through a link does not work
            (root / name).unlink()
        try:
            stack.enter_context(FileLock(root / name, timeout=_WAIT_SECONDS))
        except Timeout:
            raise UserError(
                f"workspace {root}: it was moved, and another process has {name} open. Stop that process, then try again."
            ) from None


def _places_named_in(root: Path) -> set[str]:
    """Returns the former locations of a workspace without a record, from the paths in its databases."""
    found = set()
    for name, query, pattern in (
        (METADATA, "SELECT uri FROM Artifact", r"(.+)/artifacts/[^/]+/[^/]+/\d+"),
        (MLFLOW, "SELECT artifact_location FROM experiments", r"(.+)/mlflow"),
    ):
        if not (root / name).exists():
            continue
        with closing(sqlite3.connect(f"{(root / name).as_uri()}?mode=ro", uri=True)) as database:
            try:
                uris = [str(uri) for (uri,) in database.execute(query)]
            except sqlite3.Error:  # incomplete database without content
                continue
        paths = [unquote(urlsplit(uri).path) if uri.startswith("file:") else uri for uri in uris]
        found |= {match.group(1) for path in paths if (match := re.fullmatch(pattern, path))}
    return found
