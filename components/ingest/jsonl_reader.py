"""Reads JSON Lines: one object per line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.batch_size import BYTES, rows_of
from switchyard.components.ingest.csv_options import marked
from switchyard.components.ingest.reading import Batches, check_names, every_column, read_column, refusing
from switchyard.components.ingest.sources import check_compression, open_file

# A compressed file can unpack to an unlimited size, so the line length is bounded.
_LINE_BYTES = 64 << 20
_DEPTH = 100
_SIGNS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[][{}]', re.DOTALL)


@refusing("JSON Lines")
def read_jsonl(
    path: str,
    bad: BadRows,
    missing_values: Sequence[str] | None,
    *,
    reads: Callable[[str], bool] = every_column,
    keep: bool = False,
) -> Batches:
    """Yields batches of the lines' objects; a line that is not a JSON object goes to `bad`. See `readers.reader` for the rest."""
    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    before = size = 0
    with open_file(path) as raw:
        for number, line in _lines(path, raw):
            row = _object(path, line, number, bad)
            if row is None:
                continue
            # A batch allocates a cell for each row and column, so objects without shared keys would take quadratic memory.
            if rows and (len(rows) >= rows_of(len(names) + len(row.keys() - names.keys())) or size + len(line) > BYTES):
                yield _batch_of(path, rows, list(names), before, missing_values or (), reads, keep=keep)
                before += len(rows)
                rows, names, size = [], {}, 0
            rows.append(row)
            names |= dict.fromkeys(row)
            size += len(line)
    if rows:
        yield _batch_of(path, rows, list(names), before, missing_values or (), reads, keep=keep)


def _lines(path: str, raw: BinaryIO) -> Generator[tuple[int, bytes], None, None]:
    """Yields non-blank lines with their 1-based numbers."""
    number = 0
    while line := raw.readline(_LINE_BYTES + 1):
        number += 1
        if number == 1:
            check_compression(path, line)
            if (mark := marked(line)) and mark != "utf-8":
                raise UserError(f"data.path: {path} is {mark.upper()}; JSON Lines are UTF-8. Write the file as UTF-8.")
        if len(line) > _LINE_BYTES:
            raise UserError(
                f"data.path: {path}: line {number:,} has more than {_LINE_BYTES >> 20} MiB, the limit of a row. JSON Lines "
                "have one object per line; store such large values in separate files, or use another format."
            )
        if line.strip():
            yield number, line


def _object(path: str, line: bytes, number: int, bad: BadRows) -> dict[str, Any] | None:
    """Returns a line's object; None, with a bad row added, for any other line."""
    try:
        return _object_of(line)
    except ValueError as error:
        text = line.decode("utf-8", errors="backslashreplace").strip()
        bad.add(path, f"line {number:,}: not a JSON object ({_why_not_json(error)})", text)
        return None


def _object_of(line: bytes) -> dict[str, Any]:
    """Returns a line's object.

    Raises:
        ValueError: the line is no JSON object, is nested too deeply, or holds text that UTF-8 cannot encode.
    """
    # Python's own limit differs between versions, and is higher than that of functions that visit the values.
    if line.count(b"[") + line.count(b"{") > _DEPTH and _deepest(line) > _DEPTH:
        raise ValueError("nested too deeply")
    row = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_unique)
    if not isinstance(row, dict):
        raise ValueError("not an object")
    if b"\\u" in line:
        json.dumps(row, ensure_ascii=False).encode()  # a lone surrogate cannot be encoded
    return row


def _deepest(line: bytes) -> int:
    """Returns the number of brackets that are open at once, at most; those inside texts do not count."""
    deepest = depth = 0
    for sign in _SIGNS.findall(line):
        if sign in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in b"]}":
            depth -= 1
    return deepest


def _why_not_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, character {error.colno}"
    return f"byte {error.object[error.start]:#04x} is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("duplicate keys")
    return row


def _batch_of(
    path: str,
    rows: list[dict[str, Any]],
    names: Sequence[str],
    before: int,
    missing: Sequence[str],
    reads: Callable[[str], bool],
    *,
    keep: bool,
) -> pa.RecordBatch:
    check_names(path, names)
    columns, fields = [], []
    for name in names:
        used = reads(name)
        values = [row.get(name) if used or keep else None for row in rows]
        column, field = read_column(path, name, values, before, missing, texts=not used)
        columns.append(column)
        fields.append(field)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
