"""ML Metadata shared by several threads and processes: exclusive access, a separate connection for each."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata

from switchyard.components.errors import UserError

CACHED = metadata_store_pb2.Execution.CACHED
COMPLETE = metadata_store_pb2.Execution.COMPLETE
# An id has fewer digits: SQLite's integers have 64 bits.
_DIGITS = 19


class LockedMetadata:
    """A reentrant `Metadata` handle for TFX's launcher; while entered, it locks out other threads and processes."""

    def __init__(self, database: Path, lock: Path, neutral: Callable[[str], str] | None = None) -> None:
        """Sets up the connection and its locks.

        Args:
            database: SQLite file.
            lock: lock file shared by the processes of the workspace.
            neutral: maps a text to one that does not depend on the workspace's location, for TFX's cache keys.
        """
        self._neutral, self._database = neutral, database
        self._config = metadata.sqlite_metadata_connection_config(str(database))
        self._threads = threading.RLock()
        self._processes = FileLock(lock)
        self._handles: list[Any] = []

    def __enter__(self) -> Any:
        self._threads.acquire()
        try:
            self._processes.acquire()
            try:
                handle = metadata.Metadata(self._config)
                entered = handle.__enter__()
            except BaseException:
                self._processes.release()
                raise
        except BaseException as error:
            self._threads.release()
            if isinstance(error, RuntimeError):
                raise UserError(
                    f"workspace: its metadata database cannot be opened: {error}. Use another --workspace."
                ) from error
            raise
        entered.neutral = self._neutral
        self._handles.append(handle)
        return entered

    def __exit__(self, *details: object) -> None:
        try:
            self._handles.pop().__exit__(*details)
        finally:
            self._processes.release()
            self._threads.release()

    def skip_ids_of(self, artifacts: Path) -> None:
        """Makes the ids of new executions larger than those of the artifacts' folders, so that none writes into an old folder.

        The database is older than the folders if it was deleted, or restored from a backup.
        """
        found = (p.name for pattern in ("*/*/*", "*/.system/*/*") for p in artifacts.glob(pattern))
        last = max((int(name) for name in found if name.isascii() and name.isdigit() and len(name) < _DIGITS), default=0)
        with self, closing(sqlite3.connect(self._database)) as connection, connection:
            connection.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'Execution'", (last,))
            # A table without a row yet has no entry.
            connection.execute(
                "INSERT INTO sqlite_sequence SELECT 'Execution', ? WHERE 'Execution' NOT IN (SELECT name FROM sqlite_sequence)",
                (last,),
            )

    def outcome(self, execution_id: int) -> tuple[Any, dict[str, Any]]:
        """Returns an execution's state and its output artifacts (MLMD's, one per key)."""
        with self as handle:
            store = handle.store
            [execution] = store.get_executions_by_id([execution_id])
            outputs = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)
            events = [e for e in store.get_events_by_execution_ids([execution_id]) if e.type in outputs]
            artifacts = {a.id: a for a in store.get_artifacts_by_id([e.artifact_id for e in events])}
        return execution.last_known_state, {e.path.steps[0].key: artifacts[e.artifact_id] for e in events}
