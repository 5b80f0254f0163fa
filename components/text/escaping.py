"""Escapes paths and names for other languages: database URLs, globs, MLflow filters. No other module does this.

A folder may be called `[v1]`, `a%20b`, `a?b`, `#1` or `it's`. Unescaped in a URL or a pattern, such a name means another folder.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from urllib.parse import quote

# Characters that SQLAlchemy decodes or treats as the end of a path or user name, or that end a line of Alembic's settings.
_NOT_IN_URLS = re.compile(r"[%?#@\x00-\x1f\x7f]")
MAGIC = re.compile(r"[*?\[]")
# Characters that a filter's text cannot hold: sqlparse treats a backslash before a quote as an escape, but MLflow keeps it.
_NOT_IN_FILTERS = re.compile(r"['\"\\]")


def sqlite_uri(file: Path) -> str:
    """Returns the URL of an SQLite database for SQLAlchemy and MLflow.

    A path that needs escapes gets a URL with the driver's name, because MLflow creates the folder of the short form's path
    without decoding it.
    """
    path = _NOT_IN_URLS.sub(lambda found: quote(found[0], safe=""), str(file))
    return f"sqlite:///{path}" if path == str(file) else f"sqlite+pysqlite:///{path}"


def sqlite_file(uri: str) -> Path | None:
    """Returns the file of an SQLite database's URL; None for other URLs and in-memory databases."""
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url

    name = make_url(uri).database
    return Path(name) if name and name != ":memory:" and not name.startswith("file:") else None


def split_pattern(path: str) -> tuple[str, str]:
    """Returns the part of a local path that exists literally, and the rest: a pattern or nothing."""
    head, tail = path, ""
    while head and not os.path.lexists(head):
        head, _, last = head.rpartition("/")
        tail = f"{last}/{tail}" if tail else last
        if not head and path.startswith("/"):
            head = "/"
    return head, tail


def pattern_of(path: str) -> str:
    """Returns a glob for a local path that may be one: existing folders in it are taken literally.

    `/data/[v1]/*.csv` matches the files of the folder `[v1]` when it exists, else those of `v` and `1`.
    """
    head, tail = split_pattern(path)
    return os.path.join(glob.escape(head), tail) if tail else glob.escape(head)


def equals(key: str, value: str) -> str:
    """Returns MLflow's filter for a key's value.

    A filter cannot express quotes and backslashes. It then also matches values that differ in these characters only, so the
    caller must compare the results.
    """
    if not _NOT_IN_FILTERS.search(value):
        return f"{key} = '{value}'"
    return f"{key} LIKE '{_NOT_IN_FILTERS.sub('_', value)}'"
