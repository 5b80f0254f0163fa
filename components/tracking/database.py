"""MLflow's database in a file, which the first run of a workspace makes: whole or not at all, and by one process only.

MLflow's migrations of SQLite are neither one transaction nor safe beside another process' that does the same: of two that
meet one fails, and a database whose maker was killed half-way is never finished.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from switchyard.components.text.escaping import sqlite_file, sqlite_uri
from switchyard.components.tracking.workspace_location import is_workspace, settle_in

# The folder of MLflow's files, beside its database.
FILES = "mlflow"


@contextmanager
def locked_database(uri: str) -> Iterator[None]:
    """Makes the database that a URI names if it is not there, and keeps others of this file out meanwhile.

    Open MLflow's client inside: its store looks for what it needs and makes what is missing (the default experiment).
    URIs of servers, and of databases that are no file, are let be; so is a file in a folder that cannot be written to: one
    that is there can be read, and of one that is not MLflow says so.
    """
    path = sqlite_file(uri)
    if path is not None and is_workspace(path.parent):
        settle_in(path.parent)
    if path is None or not _can_be_written(path.parent):
        yield
        return
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            _make(path)
        yield


def files_beside(uri: str, wanted: Path | None) -> Path | None:
    """Returns where MLflow's files lie beside a database in a file: `wanted` if it is there; None for every other URI."""
    path = sqlite_file(uri)
    if path is None:
        return None
    folder = path.absolute().parent
    return wanted if wanted and wanted.absolute().parent == folder else folder / FILES


def _can_be_written(folder: Path) -> bool:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    return there.is_dir() and os.access(there, os.W_OK)


def _make(path: Path) -> None:
    from mlflow.db import upgrade
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = path.with_name(f"{path.name}.new")
    for left in (new, Path(f"{new}-journal")):  # by one that was killed
        left.unlink(missing_ok=True)
    half = sqlite_uri(new)
    upgrade.callback(half)
    # It makes the default experiment, whose files would go below the current folder.
    store = SqlAlchemyStore(half, (path.absolute().parent / FILES).as_uri())
    store.engine.dispose()
    new.replace(path)
