"""Finds columns that users did not write: those from folder names and those that the file format added."""

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
    """Returns the columns that a format added, detected in a file's first rows.

    Args:
        batch: first batch of the file.
        file: name of the file.
        named: columns that the config names; these are never treated as added.

    Raises:
        UserError: a column without a name is no index.
    """
    found = [n for n in batch.schema.names if n not in named and may_be_added(n) and is_added(n, batch.column(n))]
    if UNNAMED in batch.schema.names and UNNAMED not in (*found, *named):
        raise UserError(
            f"data.path: {file}: column 1 has no name and is not a row index. Name it in the first line, or exclude it: "
            "--set \"data.exclude=['']\"."
        )
    return found


def folder_columns(path: str, patterns: Sequence[str] | None = None) -> dict[str, str | None]:
    """Returns the columns encoded in a file's folder names (Hive partitions, `region=01/`): name -> text.

    Args:
        path: path of the file.
        patterns: patterns that matched the file: only folders below their fixed part count. None: all folders count.
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
    """Returns a batch with its folder columns appended; a file's own column of the same name takes precedence."""
    for name, text in folders.items():
        if name not in batch.schema.names:
            batch = batch.append_column(name, pa.array([text] * batch.num_rows, pa.string()))
    return batch


def fixed_part(pattern: str) -> str:
    """Returns the folders of a pattern before its first glob character; for a folder, its whole path.

    An existing local folder is taken literally, even with glob characters in its name.
    """
    if os.path.isdir(pattern):
        return pattern.rstrip("/") + "/"
    there, rest = split_pattern(pattern) if "://" not in pattern else ("", pattern)
    if not glob.has_magic(rest):
        return pattern.rstrip("/") + "/"
    before = re.split(r"[*?[]", rest)[0].rpartition("/")[0]
    fixed = "/".join(part.rstrip("/") for part in (there, before) if part)
    return f"{fixed}/" if fixed else "/" if there else ""
