"""Creates and migrates MLflow's SQLite database: completely or not at all, and in one process only.

MLflow's migrations of SQLite are neither a single transaction nor safe to run concurrently: of two concurrent migrations one
fails, and a database whose creator was killed half-way is never completed.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from switchyard.components.errors import UserError
from switchyard.components.progress import say
from switchyard.components.text.escaping import sqlite_file, sqlite_uri
from switchyard.components.tracking.workspace_location import is_workspace, settle_in

# The folder of MLflow's files, beside its database.
FILES = "mlflow"
# What MLflow imports as it opens a database.
_OF_A_CLIENT = (
    "alembic.command",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.db_migrations",
    "sqlalchemy.dialects.sqlite",
)
# Alembic's state is global: of two threads that migrate, even different databases, both fail.
_migrating = threading.Lock()


@contextmanager
def locked_database(uri: str) -> Iterator[None]:
    """Creates the database of a URI if it does not exist, migrates one of an older MLflow, and locks it within the block.

    Open MLflow's client inside: its store checks its contents and creates what is missing (the default experiment).
    No-op for servers, for databases that are not files, and for files that this user cannot write: an existing database can still
    be read, and MLflow reports a missing one.

    Raises:
        UserError: the database was made by a later MLflow.
    """
    path = sqlite_file(uri)
    if path is not None and is_workspace(path.parent):
        settle_in(path.parent)
    if path is None or not _can_be_written(path):
        yield
        return
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        with _migrating:
            if not path.exists():
                _make(path)
            else:
                _migrate(path)
        yield


def prepare() -> None:
    """Imports and computes what a client of a database needs, for the processes that are forked from this one; opens none."""
    for module in _OF_A_CLIENT:
        importlib.import_module(module)
    from sqlalchemy.orm import configure_mappers

    from switchyard.components.compat import mlflow_schema

    configure_mappers()
    mlflow_schema.install()
    _revisions()


def files_beside(uri: str, wanted: Path | None) -> Path | None:
    """Returns the folder of MLflow's files beside a database file: `wanted` if it is in that folder; None for any other URI."""
    path = sqlite_file(uri)
    if path is None:
        return None
    folder = path.absolute().parent
    return wanted if wanted and wanted.absolute().parent == folder else folder / FILES


def _can_be_written(path: Path) -> bool:
    there = next(p for p in path.parents if p.exists())
    files = [p for p in (path, Path(f"{path}.lock")) if p.exists()]
    return there.is_dir() and all(os.access(p, os.W_OK) for p in (there, *files))


def _make(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = path.with_name(f"{path.name}.new")
    Path(f"{new}-journal").unlink(missing_ok=True)  # left by a killed process
    new.write_bytes(_empty_database())
    # Sets the artifact root, else the default experiment's files would go below the current folder.
    store = SqlAlchemyStore(sqlite_uri(new), (path.absolute().parent / FILES).as_uri())
    store.engine.dispose()
    new.replace(path)


def _migrate(path: Path) -> None:
    """Brings a database of an older MLflow to this one's schema, and keeps the older one beside it.

    MLflow itself does so without a copy if tables are missing, else ends with an error.
    """
    with closing(sqlite3.connect(path)) as connection:
        try:
            before = [str(row[0]) for row in connection.execute("SELECT version_num FROM alembic_version")]
        except sqlite3.DatabaseError:
            return  # an empty file, or no database of MLflow's: MLflow creates what is missing, or reports the error
        known = _revisions()
        if before == known[:1]:
            return
        if len(before) != 1 or before[0] not in known:
            raise UserError(
                f"tracking: {path} was made by a later MLflow than this environment's (schema {', '.join(before) or 'unknown'}); "
                "install the version of Switchyard that made it, or choose another workspace"
            )
        kept, new = path.with_name(f"{path.name}.{before[0]}"), path.with_name(f"{path.name}.new")
        for copy in (kept, new):
            Path(f"{copy}-journal").unlink(missing_ok=True)  # left by a killed process
            copy.unlink(missing_ok=True)
            with closing(sqlite3.connect(copy)) as target:
                connection.backup(target)
    from mlflow.db import upgrade

    say(f"MLflow's database {path} is migrated to this version's schema; the former one is kept as {kept.name}")
    upgrade.callback(sqlite_uri(new))
    new.replace(path)


@cache
def _revisions() -> list[str]:
    """Returns the schemas that this MLflow knows, newest first."""
    from alembic.script import ScriptDirectory
    from mlflow.store import db_migrations

    scripts = ScriptDirectory(str(Path(str(db_migrations.__file__)).parent))
    return [s.revision for s in scripts.walk_revisions()]


@cache
def _empty_database() -> bytes:
    """Returns the content of a database file after MLflow's migrations.

    The migrations run in memory, because in a file each of their dozens of transactions waits for the disk; and once per process.
    """
    from mlflow.db import upgrade

    address = "file:switchyard-empty-database?mode=memory&cache=shared"
    with closing(sqlite3.connect(address, uri=True)) as connection:  # keeps the database while MLflow connects anew
        upgrade.callback(f"sqlite:///{address}&uri=true")
        return connection.serialize()
