"""Shared parts of the format readers: the batch type, and checks and errors common to all formats."""

from __future__ import annotations

import functools
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pyarrow as pa

from switchyard.components.errors import UserError, first_line
from switchyard.components.ingest.json_columns import MixedColumnError, as_texts, json_column

Batches = Generator[pa.RecordBatch, None, None]
_LONGEST_NAME = 20_000
# Errors raised by Arrow, the file system and the decompressors for a broken file.
_BROKEN = (pa.ArrowException, EOFError, OSError, zlib.error)


def refusing(name: str) -> Callable[[Callable[..., Batches]], Callable[..., Batches]]:
    """Returns a decorator that turns errors of a broken, truncated or wrongly compressed file into a UserError."""

    def decorated(read: Callable[..., Batches]) -> Callable[..., Batches]:
        @functools.wraps(read)
        def read_or_refuse(path: str, *arguments: Any, **options: Any) -> Batches:
            try:
                yield from read(path, *arguments, **options)
            except _BROKEN as error:
                raise unreadable(path, name, first_line(error), ".gz, .bz2") from error

        return read_or_refuse

    return decorated


def unreadable(path: str, name: str, reason: str, endings: str) -> UserError:
    """Returns the error for a broken file or one not in format `name`; `endings`: file name endings of compressed files."""
    return UserError(
        f"data.path: {path} cannot be read as {name}: {reason}. Check that it is complete, of this format (data.format) and "
        f"compressed as its name says ({endings})."
    )


def check_names(path: str, names: Sequence[str]) -> None:
    """Raises UserError for a column name with NUL, that is not UTF-8 or too long: downstream formats cannot store it."""
    for place, name in enumerate(names, start=1):
        if "\0" in name or "\ufffd" in name:
            what = "holds a NUL character" if "\0" in name else "is not UTF-8"
            raise UserError(f"data.path: {path}: the name of column {place}, {name[:50]!r}, {what}. Rename it.")
        if len(name) > _LONGEST_NAME:
            raise UserError(
                f"data.path: {path}: the name of column {place}, {name[:50]!r}…, has {len(name):,} characters, the limit is "
                f"{_LONGEST_NAME:,}: perhaps a quote is not closed. Rename it."
            )


def check_doubled(path: str, names: Sequence[str]) -> None:
    """Raises UserError for duplicate column names."""
    if doubled := sorted(n for n, count in Counter(names).items() if count > 1):
        raise UserError(f"data.path: {path}: duplicate column name {', '.join(map(repr, doubled))}. Rename one.")


def every_column(name: str) -> bool:
    """Returns True: the default of the readers' `reads`."""
    return True


def read_column(
    path: str, name: str, values: list[Any], before: int, missing: Sequence[str], *, texts: bool = False
) -> tuple[pa.Array, pa.Field]:
    """Returns an Arrow column of Python values, see `json_column`.

    Args:
        path: the file.
        name: the column.
        values: its values.
        before: number of preceding rows in the file.
        missing: texts that mean missing.
        texts: write values that no column type can hold together as texts, those that are no texts as JSON.

    Raises:
        UserError: no column type can hold the values together.
    """
    try:
        return json_column(name, values, missing)
    except MixedColumnError as error:
        if texts:
            return as_texts(values), pa.field(name, pa.string())
        raise UserError(
            f"data: {path}, row {before + error.row}: column {name!r} {error}. Write it in one way, or leave it out "
            f"with data.exclude: [{name}]."
        ) from None
