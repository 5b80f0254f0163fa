"""What the readers of all formats have in common: the form of what they yield, and what is refused in one way."""

from __future__ import annotations

import functools
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pyarrow as pa

from switchyard.components.errors import UserError, first_line
from switchyard.components.ingest.json_columns import MixedColumnError, json_column

Batches = Generator[pa.RecordBatch, None, None]
_LONGEST_NAME = 20_000
# Of Arrow, of a file and what decompresses it.
_BROKEN = (pa.ArrowException, EOFError, OSError, zlib.error)


def refusing(name: str) -> Callable[[Callable[..., Batches]], Callable[..., Batches]]:
    """Makes a file that is not of a reader's format, cut off or wrongly compressed the user's error."""

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
    """Returns the refusal of a file that is broken, or no file of the format `name`; `endings`: of compressed ones."""
    return UserError(
        f"data.path: {path} cannot be read as {name}: {reason}. Look whether it is whole, of this format (data.format) and "
        f"compressed as its name says ({endings})."
    )


def check_names(path: str, names: Sequence[str]) -> None:
    """Raises UserError for a name that the formats and libraries behind cannot carry; any other one is a name like the rest."""
    for place, name in enumerate(names, start=1):
        if "\0" in name or "\ufffd" in name:
            what = "holds a NUL character" if "\0" in name else "is not UTF-8"
            raise UserError(f"data.path: {path}: the name of column {place}, {name[:50]!r}, {what}. Rename it.")
        if len(name) > _LONGEST_NAME:
            raise UserError(
                f"data.path: {path}: the name of column {place}, {name[:50]!r}…, has {len(name):,} characters, at most "
                f"{_LONGEST_NAME:,} are taken: perhaps a quote is not closed. Rename it."
            )


def check_doubled(path: str, names: Sequence[str]) -> None:
    """Raises UserError for a name that stands twice."""
    if doubled := sorted(n for n, count in Counter(names).items() if count > 1):
        raise UserError(f"data.path: {path}: duplicate column name {', '.join(map(repr, doubled))}. Rename one.")


def read_column(path: str, name: str, values: list[Any], before: int, missing: Sequence[str]) -> tuple[pa.Array, pa.Field]:
    """Returns a column of Python values, see `json_column`; `before`: rows of the file before them.

    Raises:
        UserError: no column can hold them together.
    """
    try:
        return json_column(name, values, missing)
    except MixedColumnError as error:
        raise UserError(
            f"data: {path}, row {before + error.row}: column {name!r} {error}. Write it in one way, or leave it out "
            f"with data.exclude: [{name}]."
        ) from None
