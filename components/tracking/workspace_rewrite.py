"""Rewrites the paths in a workspace's databases, journals and last run after a move.

Stage outputs stay unchanged, since their digests are recorded; nothing in them is found by an absolute path.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from switchyard.components.text.escaping import sqlite_uri
from switchyard.components.tracking.journal import HEADER, is_alive

_TRACKING = "tracking"
_LAST_RUN = Path("state", "last_run.json")
# KFP's local runner caches tasks by absolute input paths, so they run once more after a move.
_KFP_CACHE = Path("kubeflow", ".kfp_cache")
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Move:
    """A workspace's old and new location; `copied`: whether the original still exists."""

    before: Path
    now: Path
    copied: bool

    def prefixes(self) -> Sequence[tuple[str, str]]:
        """Returns pairs of old and new prefixes of a location: paths, file URIs, SQLite URIs."""
        return (
            (str(self.before), str(self.now)),
            (self.before.as_uri(), self.now.as_uri()),
            (sqlite_uri(self.before), sqlite_uri(self.now)),
            # The unescaped form of older versions.
            (f"sqlite:///{self.before}", sqlite_uri(self.now)),
        )

    def text(self, text: str) -> str:
        """Returns a location in the workspace with its new prefix, and any other text unchanged."""
        for before, now in self.prefixes():
            if _lies_in(text, before) and not (self.into_itself and _lies_in(text, now)):
                return now + text[len(before) :]
        return text

    @property
    def into_itself(self) -> bool:
        """Whether the new location lies in the old one, where rewritten paths still match the old prefix."""
        return self.now.is_relative_to(self.before)

    def value(self, value: Any) -> Any:
        """Returns a JSON value with all of its texts rewritten."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(v) for v in value]
        if isinstance(value, dict):
            return {key: self.value(v) for key, v in value.items()}
        return value


def _lies_in(text: str, place: str) -> bool:
    return text == place or text.startswith(f"{place}/")


def writer(journals: Path) -> int | None:
    """Returns the pid of a run that still writes to the workspace, or None."""
    return next((header["pid"] for _, header in _headers(journals) if is_alive(header)), None)


def copied_journals(move: Move, journals: Path) -> None:
    """Takes over a copy's journals; those for a server shared with the original are deleted, since the original sends them."""
    if not move.copied:
        return
    for folder, header in _headers(journals):
        original = move.before / folder.relative_to(move.now)
        if move.text(str(header["uri"])) == header["uri"] and original.is_dir():
            shutil.rmtree(folder)
        else:
            _replace(folder / HEADER, json.dumps({**header, "pid": None}, indent=1))


def rewrite_files(move: Move) -> None:
    """Rewrites the journals and the last run, each file atomically; safe to repeat."""
    journals = move.now / _TRACKING
    for file in [*_in_journals(journals, HEADER), move.now / _LAST_RUN]:
        if file.exists():
            _replace(file, _rewritten(move, file.read_text(encoding="utf-8"), indent=1))
    for file in _in_journals(journals, "*.jsonl"):
        # A line truncated by a kill is the last one; it keeps its missing end.
        lines = file.read_text(encoding="utf-8").split("\n")
        _replace(file, "\n".join(_rewritten(move, line) for line in lines))
    shutil.rmtree(move.now / _KFP_CACHE, ignore_errors=True)


def files_of_ones_own(move: Move, files: Sequence[Path]) -> None:
    """Replaces linked databases in a copy (`cp -rl`, `cp -rs`) by real copies; writes would go to the original's otherwise."""
    for file in files:
        if not move.copied or not file.exists() or (file.stat().st_nlink == 1 and not file.is_symlink()):
            continue
        new = file.with_name(f"{file.name}.new")
        new.unlink(missing_ok=True)
        with closing(sqlite3.connect(file)) as shared, closing(sqlite3.connect(new)) as own:
            shared.backup(own)
        os.replace(new, file)


def rewrite_databases(move: Move, files: Sequence[Path]) -> None:
    """Rewrites all locations in SQLite databases in a single transaction.

    Raises:
        sqlite3.Error: one of them cannot be written to.
    """
    there = [file for file in files if file.exists()]
    if not there:
        return
    with closing(sqlite3.connect(there[0], isolation_level=None, timeout=_WAIT_SECONDS)) as database:
        schemas = ["main"]
        for file in there[1:]:
            schemas.append(f"also{len(schemas)}")
            database.execute(f"ATTACH DATABASE ? AS {schemas[-1]}", (str(file),))
        database.create_function("relocated", 1, move.text, deterministic=True)
        database.execute("BEGIN IMMEDIATE")
        for schema in schemas:
            for table, column in list(_texts(database, schema)):
                database.execute(
                    f'UPDATE {schema}."{table}" SET "{column}" = relocated("{column}") '  # noqa: S608
                    f'WHERE typeof("{column}") = \'text\' AND "{column}" <> relocated("{column}")'
                )
        database.execute("COMMIT")


def _texts(database: sqlite3.Connection, schema: str) -> Iterator[tuple[str, str]]:
    """Yields the text columns of each table that belong to no key."""
    for (table,) in database.execute(f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table'").fetchall():  # noqa: S608
        foreign = {row[3] for row in database.execute(f'PRAGMA {schema}.foreign_key_list("{table}")')}
        for _, column, kind, _, _, key in database.execute(f'PRAGMA {schema}.table_info("{table}")').fetchall():
            if not key and column not in foreign and any(word in kind.upper() for word in ("CHAR", "TEXT")):
                yield table, column


def _in_journals(journals: Path, name: str) -> list[Path]:
    """Returns the journals' files of a name; not deeper, since files to send lie there and stay unchanged."""
    return sorted([*journals.glob(f"*/{name}"), *journals.glob(f"refused/*/{name}")])


def _headers(journals: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in _in_journals(journals, HEADER):
        header = _loads(file.read_text(encoding="utf-8"))
        if isinstance(header, dict) and "uri" in header:
            yield file.parent, header


def _loads(text: str) -> Any:
    """Returns parsed JSON, or None for invalid JSON, which later readers reject."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _rewritten(move: Move, text: str, **layout: Any) -> str:
    found = _loads(text)
    return text if found is None else json.dumps(move.value(found), **layout)


def _replace(file: Path, text: str) -> None:
    new = file.with_name(f"{file.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, file)
