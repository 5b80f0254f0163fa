"""Rewrites what a workspace holds when it comes to lie elsewhere: its databases, its journals, its last run.

What stages wrote is let be, as its digests are recorded; nothing in it is found by an absolute path.
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
# KFP's own local runner knows finished tasks by absolute paths of what they were given: they run once more.
_KFP_CACHE = Path("kubeflow", ".kfp_cache")
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Move:
    """From where to where a workspace came to lie; `copied`: the one that it was is still there."""

    before: Path
    now: Path
    copied: bool

    def prefixes(self) -> Sequence[tuple[str, str]]:
        """What a location begins with, and what it is to begin with: paths, file URIs, SQLite's."""
        return (
            (str(self.before), str(self.now)),
            (self.before.as_uri(), self.now.as_uri()),
            (sqlite_uri(self.before), sqlite_uri(self.now)),
            # As it was written before it was escaped.
            (f"sqlite:///{self.before}", sqlite_uri(self.now)),
        )

    def text(self, text: str) -> str:
        """Returns a location in the workspace as it is now, and any other text as it is."""
        for before, now in self.prefixes():
            if _lies_in(text, before) and not (self.into_itself and _lies_in(text, now)):
                return now + text[len(before) :]
        return text

    @property
    def into_itself(self) -> bool:
        """The new place lies in the old one: what is rewritten already looks as if it were not."""
        return self.now.is_relative_to(self.before)

    def value(self, value: Any) -> Any:
        """Returns a JSON value with every text in it rewritten."""
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
    """Returns the process of a run that still writes to a workspace, None when there is none."""
    return next((header["pid"] for _, header in _headers(journals) if is_alive(header)), None)


def copied_journals(move: Move, journals: Path) -> None:
    """Makes a copy's journals its own: what goes to a server both share is the original's to send, and so are its runs to end."""
    if not move.copied:
        return
    for folder, header in _headers(journals):
        original = move.before / folder.relative_to(move.now)
        if move.text(str(header["uri"])) == header["uri"] and original.is_dir():
            shutil.rmtree(folder)
        else:
            _replace(folder / HEADER, json.dumps({**header, "pid": None}, indent=1))


def rewrite_files(move: Move) -> None:
    """Rewrites journals and the last run; each file whole or not at all, and a second time without harm."""
    journals = move.now / _TRACKING
    for file in [*_in_journals(journals, HEADER), move.now / _LAST_RUN]:
        if file.exists():
            _replace(file, _rewritten(move, file.read_text(encoding="utf-8"), indent=1))
    for file in _in_journals(journals, "*.jsonl"):
        # A line that a kill cut short is the last one, and stays without its end.
        lines = file.read_text(encoding="utf-8").split("\n")
        _replace(file, "\n".join(_rewritten(move, line) for line in lines))
    shutil.rmtree(move.now / _KFP_CACHE, ignore_errors=True)


def files_of_ones_own(move: Move, files: Sequence[Path]) -> None:
    """Gives a copy that was made of links (`cp -rl`, `cp -rs`) databases of its own: else it would write to the original's."""
    for file in files:
        if not move.copied or not file.exists() or (file.stat().st_nlink == 1 and not file.is_symlink()):
            continue
        new = file.with_name(f"{file.name}.new")
        new.unlink(missing_ok=True)
        with closing(sqlite3.connect(file)) as shared, closing(sqlite3.connect(new)) as own:
            shared.backup(own)
        os.replace(new, file)


def rewrite_databases(move: Move, files: Sequence[Path]) -> None:
    """Rewrites every location in SQLite databases, in one transaction over all of them.

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
    """Yields the columns of text that no key is made of, by table."""
    for (table,) in database.execute(f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table'").fetchall():  # noqa: S608
        foreign = {row[3] for row in database.execute(f'PRAGMA {schema}.foreign_key_list("{table}")')}
        for _, column, kind, _, _, key in database.execute(f'PRAGMA {schema}.table_info("{table}")').fetchall():
            if not key and column not in foreign and any(word in kind.upper() for word in ("CHAR", "TEXT")):
                yield table, column


def _in_journals(journals: Path, name: str) -> list[Path]:
    """Not deeper: the files that are to be sent lie there, and stay as they are."""
    return sorted([*journals.glob(f"*/{name}"), *journals.glob(f"refused/*/{name}")])


def _headers(journals: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in _in_journals(journals, HEADER):
        header = _loads(file.read_text(encoding="utf-8"))
        if isinstance(header, dict) and "uri" in header:
            yield file.parent, header


def _loads(text: str) -> Any:
    """What is no JSON is let be, and refused by whatever reads it in earnest."""
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
