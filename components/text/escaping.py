"""Paths and names inside of other languages: a database's URL, a glob, MLflow's filters. Each is escaped here alone.

A folder may be called `[v1]`, `a%20b`, `a?b`, `#1` or `it's`. Pasted into a URL or a pattern such a name means another folder.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from urllib.parse import quote

# What SQLAlchemy decodes, takes for the end of a path or for a user's name, or what ends a line of Alembic's settings.
_NOT_IN_URLS = re.compile(r"[%?#@\x00-\x1f\x7f]")
MAGIC = re.compile(r"[*?\[]")
# What a filter's text cannot hold: sqlparse takes a backslash before a quote for an escape, and MLflow keeps it.
_NOT_IN_FILTERS = re.compile(r"['\"\\]")


def sqlite_uri(file: Path) -> str:
    """Returns the URL of an SQLite database, for SQLAlchemy and MLflow.

    A name that needs escapes gets the form with the driver's name: of the short form MLflow makes the folder that the URL
    names before it is decoded.
    """
    path = _NOT_IN_URLS.sub(lambda found: quote(found[0], safe=""), str(file))
    return f"sqlite:///{path}" if path == str(file) else f"sqlite+pysqlite:///{path}"


def sqlite_file(uri: str) -> Path | None:
    """Returns the file of an SQLite database's URL; None of every other URL, and of a database in memory."""
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url

    name = make_url(uri).database
    return Path(name) if name and name != ":memory:" and not name.startswith("file:") else None


def split_pattern(path: str) -> tuple[str, str]:
    """Returns what of a local path is there as it stands, and what follows: a pattern, or nothing."""
    head, tail = path, ""
    while head and not os.path.lexists(head):
        head, _, last = head.rpartition("/")
        tail = f"{last}/{tail}" if tail else last
        if not head and path.startswith("/"):
            head = "/"
    return head, tail


def pattern_of(path: str) -> str:
    """Returns a glob for a local path that may hold one: the folders in it that are there are taken as they stand.

    `/data/[v1]/*.csv` finds the files of the folder `[v1]` when there is one, else those of `v` and of `1`.
    """
    head, tail = split_pattern(path)
    return os.path.join(glob.escape(head), tail) if tail else glob.escape(head)


def equals(key: str, value: str) -> str:
    """Returns MLflow's filter for a key's value.

    A value with quotes or backslashes cannot be written in one: the filter then finds others too, which differ from it in
    these characters alone; compare what is found.
    """
    if not _NOT_IN_FILTERS.search(value):
        return f"{key} = '{value}'"
    return f"{key} LIKE '{_NOT_IN_FILTERS.sub('_', value)}'"
