"""Writes windows of sorted series as Parquet, a row each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from switchyard.components.data.windows import KnownWindows, ahead_name
from switchyard.components.ingest.series import Series
from switchyard.components.values.spelling import BOOLEAN, TEXT, TIME, TIMESTAMP, unit_of

# Upper bound on the values that are gathered at once.
_CELLS = 16 << 20


def save(series: Series, first: np.ndarray, known: KnownWindows, path: Path, others: Mapping[str, str] | None = None) -> None:
    """Writes windows: lists of past values and of values known ahead, the last past row's other values, and the labels.

    Args:
        series: the long table.
        first: first row of each window, int (n,).
        known: names and types of the columns.
        path: the file.
        others: column of the table -> name; if given, the last past row's values of these are written, and no labels.
    """
    names = {**{n: n for n in known.still}, **(others or {})}
    meanings = {n: "" if c["is_bytes"] else str(c["meaning"]) for n, c in known.columns.items()}
    meanings |= {ahead_name(n): meanings[n] for n in known.settings.known}
    writer: Any = None
    try:
        for table in _gathered(series, first, known, names, labels=others is None):
            arrays = [_as_meant(table[n].combine_chunks(), meanings.get(n, "")) for n in table.column_names]
            meant = pa.table(arrays, names=[names.get(n, n) for n in table.column_names])
            writer = writer or pyarrow.parquet.ParquetWriter(path, meant.schema)
            writer.write_table(meant)
    finally:
        if writer is not None:
            writer.close()


def _gathered(
    series: Series, first: np.ndarray, known: KnownWindows, last: Collection[str], *, labels: bool
) -> Iterator[pa.Table]:
    """Yields at least one table of windows; `last`: columns of which the last past row's value is taken."""
    settings = known.settings
    cells = settings.past * len(known.past) + settings.future * (1 + len(settings.known)) + len(last)
    size = max(1, min(32_768, _CELLS // cells))
    for at in range(0, max(1, len(first)), size):
        chosen = first[at : at + size]
        found: dict[str, pa.Array] = {n: _lists(series.table[n], chosen, settings.past) for n in known.past}
        for name in settings.known:
            found[ahead_name(name)] = _lists(series.table[name], chosen + settings.past, settings.future)
        for name in last:
            found[name] = series.table[name].take(pa.array(chosen + settings.past - 1)).combine_chunks()
        for step, name in enumerate(settings.targets if labels else ()):
            found[name] = series.table[settings.label].take(pa.array(chosen + settings.past + step)).combine_chunks()
        yield pa.table(found)


def _lists(column: pa.ChunkedArray, first: np.ndarray, length: int) -> pa.Array:
    rows = (first[:, np.newaxis] + np.arange(length)).ravel()
    values = column.take(pa.array(rows)).combine_chunks()
    return pa.ListArray.from_arrays(pa.array(np.arange(len(first) + 1, dtype=np.int32) * length), values)


def _as_meant(values: pa.Array, meaning: str) -> pa.Array:
    """Returns stored values in the Arrow type of their meaning, so that ingest reads them as it read the long table."""
    kind, unit = meaning.partition("[")[0], unit_of(meaning)
    if pa.types.is_list(values.type):
        return pa.ListArray.from_arrays(values.offsets, _as_meant(values.flatten(), meaning))
    if kind == BOOLEAN and pa.types.is_integer(values.type):
        return values.cast(pa.bool_())
    if kind == TIMESTAMP:
        return values.cast(pa.timestamp(unit))
    if kind == TIME:
        return values.cast(pa.int32()).cast(pa.time32(unit)) if unit in ("s", "ms") else values.cast(pa.time64(unit))
    return values.cast(pa.string()) if kind == TEXT and pa.types.is_binary(values.type) else values
