"""Columns that no person put into a file: those that the names of its folders carry, and those that its format added."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import unquote

import pyarrow as pa

from switchyard.components.data.added_columns import UNNAMED, is_added, may_be_added
from switchyard.components.errors import UserError
from switchyard.components.text.escaping import split_pattern

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def added_columns(batch: pa.RecordBatch, file: str, named: Collection[str | None]) -> list[str]:
    """Returns the columns that a format added, told by a file's first rows.

    Args:
        batch: the first one.
        file: it is from.
        named: columns that the config names: these are a person's.

    Raises:
        UserError: a column without a name that is no index.
    """
    found = [n for n in batch.schema.names if n not in named and may_be_added(n) and is_added(n, batch.column(n))]
    if UNNAMED in batch.schema.names and UNNAMED not in (*found, *named):
        raise UserError(
            f"data.path: {file}: column 1 has no name, and does not count or name the rows. Name it in the first line, or leave "
            "it out: --set \"data.exclude=['']\"."
        )
    return found


def folder_columns(path: str, patterns: Sequence[str] | None = None) -> dict[str, str | None]:
    """Returns the columns that the folders before a file carry (Hive's partitions, `region=01/`): name -> text.

    Args:
        path: of the file.
        patterns: what it was found by: only folders below their fixed part count; None: all do.
    """
    if patterns is not None:
        if path in patterns:
            return {}
        fixed = max((len(fixed_part(p)) for p in patterns if path.startswith(fixed_part(p))), default=0)
        path = path[fixed:]
    found: dict[str, str | None] = {}
    for part in reversed(path.split("/")[:-1]):
        name, equals, value = part.partition("=")
        if not equals or not name:
            break
        found[unquote(name)] = None if value == _NO_VALUE else unquote(value)
    return dict(reversed(found.items()))


def with_folders(batch: pa.RecordBatch, folders: Mapping[str, str | None]) -> pa.RecordBatch:
    """Returns a batch with the columns of its folders behind its own, of which one with the same name stays as it is."""
    for name, text in folders.items():
        if name not in batch.schema.names:
            batch = batch.append_column(name, pa.array([text] * batch.num_rows, pa.string()))
    return batch


def fixed_part(pattern: str) -> str:
    """Returns the folders of a pattern before its first glob character; all of a folder's path.

    A local folder that is there is taken as it stands, whatever characters are in its name.
    """
    if os.path.isdir(pattern):
        return pattern.rstrip("/") + "/"
    there, rest = split_pattern(pattern) if "://" not in pattern else ("", pattern)
    if not glob.has_magic(rest):
        return pattern.rstrip("/") + "/"
    before = re.split(r"[*?[]", rest)[0].rpartition("/")[0]
    fixed = "/".join(part.rstrip("/") for part in (there, before) if part)
    return f"{fixed}/" if fixed else "/" if there else ""
