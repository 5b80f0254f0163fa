"""Reads CSV files: header and rows."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv

from switchyard.components.compat.arrow_invalid_rows import watched
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.csv_options import DEFAULTS, CsvOptions, csv_head, csv_stream, undecodable
from switchyard.components.ingest.reading import Batches, check_doubled, check_names, refusing

_BLOCK = 8 << 20
# Bytes read for the header; the second size applies when the header does not fit the first.
_HEADER_BYTES = (1 << 20, 8 << 20)
_FIRST_ROWS = 10
# Number of columns of the widest spreadsheet that is exported with all its separators.
_MOST_UNNAMED = 1 << 14
_SHOWN = 20


@refusing("CSV")
def read_csv(path: str, bad: BadRows, missing_values: Sequence[str] | None, options: CsvOptions = DEFAULTS) -> Batches:
    """Yields batches of string columns; ragged and non-UTF-8 rows go to `bad`. An empty cell is null."""
    head = _header(path, options)
    names = head.names

    def ragged(row: Any) -> str:
        place = f"record {row.number - head.lines:,}: " if row.number else ""
        bad.add(path, f"{place}{row.actual_columns} fields where the header has {row.expected_columns}", str(row.text))
        return "skip"

    with watched(ragged) as not_text, csv_stream(path, options) as raw:
        if head.is_all:
            return
        try:
            rows = pa.csv.open_csv(
                raw,
                # Single-threaded: with several threads, the row handler is called from threads that wait for each other.
                read_options=pa.csv.ReadOptions(block_size=_BLOCK, use_threads=False, column_names=names, skip_rows=head.lines),
                parse_options=pa.csv.ParseOptions(
                    delimiter=options.separator_of(path), newlines_in_values=True, invalid_row_handler=ragged
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.binary()),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                    # Other missing words depend on the column's type, which is not yet known.
                    null_values=[""],
                ),
            )
            for batch in rows:
                decoded = _decoded(batch, path, bad)
                if held := [n for n in head.unnamed if decoded.column(n).null_count < decoded.num_rows]:
                    raise _unnamed(path, [names.index(n) for n in held])
                yield decoded
        except pa.ArrowInvalid:
            if not_text:
                raise UserError(f"data.path: {undecodable(path, options)}") from None
            raise


@dataclass(frozen=True)
class _Header:
    """Header record of a CSV, which may span several lines.

    Attributes:
        names: column names of the rows.
        lines: number of lines in the header.
        is_all: True when no data follows.
        unnamed: names, as pandas generates them, of trailing columns without a name, where lines end with a separator.
    """

    names: list[str]
    lines: int
    is_all: bool
    unnamed: list[str]


def _header(path: str, options: CsvOptions) -> _Header:
    names, lines, is_all, first = _first_lines(path, options)
    seems = next((s for s in ";\t|," if len(names) == 1 and s in names[0]), None)
    if seems:
        raise UserError(
            f"data.path: {path} has one column, {names[0][:60]!r}, when read with the separator {options.separator_of(path)!r}. "
            f"Set data.csv.separator: {json.dumps(seems)} (--set 'data.csv.separator={json.dumps(seems)}')."
        )
    if not names:
        raise UserError(f"data.path: {path} is empty; a CSV starts with a line of column names.")
    named = next((i for i in range(len(names), 1, -1) if names[i - 1].strip()), 1)
    if len(names) - named > _MOST_UNNAMED:
        raise _unnamed(path, range(named, len(names)))
    unnamed = [f"Unnamed: {i}" for i in range(named, len(names))]
    # The first column may be an index that pandas or R wrote, so it may lack a name here.
    if nameless := [i for i, n in enumerate(names[:named]) if not n.strip() and (i or n)]:
        raise _unnamed(path, nameless)
    fields = {len(row) for row in first}
    if fields == {named}:  # only the header ends with a separator: the column does not exist
        names, unnamed = names[:named], []
    elif fields == {len(names) + 1} and all(row[-1] for row in first):  # R omits the row-name column's name
        names, unnamed = ["", *names], []
    else:
        names = [*names[:named], *unnamed]
    check_names(path, names)
    check_doubled(path, names)
    return _Header(names, lines, is_all, unnamed)


def _first_lines(path: str, options: CsvOptions) -> tuple[list[str], int, bool, list[list[str]]]:
    """Returns the header's names, its number of lines, whether no data follows, and up to ten rows."""
    for size in _HEADER_BYTES:
        head, is_cut = csv_head(path, options, size)
        text = io.StringIO(head, newline="")
        rows = csv.reader(text, delimiter=options.separator_of(path))
        try:
            names = next(rows, [])
        except csv.Error as error:
            raise UserError(f"data.path: {path} cannot be read as CSV: {error}. Fix its first line.") from error
        lines = rows.line_num
        is_all = text.tell() == len(head)
        if is_cut and is_all:
            continue
        first: list[list[str]] = []
        with suppress(csv.Error):  # Arrow may still parse the field
            first.extend(itertools.islice(rows, _FIRST_ROWS))
        whole = first[:-1] if is_cut and text.tell() == len(head) else first
        return names, lines, is_all, [row for row in whole if row]
    raise UserError(
        f"data.path: {path}: the first line has more than {size >> 20} MiB; a CSV starts with a line of column names."
    )


def _unnamed(path: str, places: Sequence[int]) -> UserError:
    more = f" and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else ""
    shown = ", ".join(str(i + 1) for i in places[:_SHOWN])
    return UserError(f"data.path: {path}: column {shown}{more} has no name. Name it in the first line.")


def _decoded(batch: pa.RecordBatch, path: str, bad: BadRows) -> pa.RecordBatch:
    try:
        return pa.RecordBatch.from_arrays([c.cast(pa.string()) for c in batch.columns], names=batch.schema.names)
    except pa.ArrowInvalid:
        pass
    keep, where = [], ""
    for i in range(batch.num_rows):
        row = [c[i].as_py() or b"" for c in batch.columns]
        good = all(_is_utf8(value) for value in row)
        keep.append(good)
        if not good:
            where = where or undecodable(path, DEFAULTS)
            bad.add(path, f"not UTF-8 text ({where})", b",".join(row).decode("utf-8", errors="backslashreplace"))
    kept = batch.filter(pa.array(keep))
    return pa.RecordBatch.from_arrays([c.cast(pa.string()) for c in kept.columns], names=kept.schema.names)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
