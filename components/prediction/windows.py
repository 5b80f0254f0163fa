"""Makes windows of a long table for a model of windows: the last one of each series to predict, or all with their labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data.windows import KnownWindows
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.csv_options import CsvOptions
from switchyard.components.ingest.declared import plain_numbers
from switchyard.components.ingest.layout import folder_columns, with_folders
from switchyard.components.ingest.readers import reader
from switchyard.components.ingest.series import Completeness, Series
from switchyard.components.ingest.window_files import save
from switchyard.components.ingest.windowed import MOST_BYTES
from switchyard.components.progress import say
from switchyard.components.text.visible import in_a_line
from switchyard.components.values.conversion import fit_rows, single
from switchyard.components.values.raw_features import RawFeature
from switchyard.components.values.spelling import unit_of

_NO_LIMIT = 2**62
# Column of the table with the order as the files spell it; no column of a file has such a name.
_AS_GIVEN = "\0order"


@dataclass(frozen=True)
class LastWindows:
    """The last window of each series.

    Attributes:
        written: columns that identify a window in the output: the group and the order of its last past row.
        windows: number of windows.
        refused: rows that do not fit, and series without a window, each with its reason.
    """

    written: tuple[str, ...]
    windows: int
    refused: list[dict[str, Any]]

    @property
    def refusals(self) -> int:
        """Number of rows and series refused, also of those that `refused` only counts."""
        return _number_of(self.refused)


def _number_of(refused: Sequence[Mapping[str, Any]]) -> int:
    return sum(int(line.get("number", 1)) for line in refused)


def write_last_windows(
    summary: DatasetSummary, kinds: Mapping[str, str], missing_values: Sequence[str], path: Path
) -> LastWindows:
    """Writes the last window of each series as Parquet.

    The last past row is the last one with a label: rows after it tell what is known ahead.

    Args:
        summary: summary of the model's training data, which has `windows`.
        kinds: file -> csv, parquet, jsonl or tfrecord.
        missing_values: texts that mean missing, in addition to those of the training data.
        path: the Parquet file.

    Raises:
        UserError: a column is missing, a time occurs twice in a series, a row does not fit a model that ignores gaps, no
            series has a window, or the table does not fit into memory.
    """
    known = KnownWindows.of(summary.windows or {})
    settings = known.settings
    refused: list[dict[str, Any]] = []
    series = _series(known, summary, kinds, missing_values, refused)
    if known.step is None and refused:
        raise UserError(
            f"{refused[0]['file']}: {refused[0]['reason']} ({_number_of(refused):,} such rows). The model ignores gaps "
            "(data.windows.gaps), so the rows around them would be taken as consecutive: fix them, or take them out of INPUT."
        )
    first, reasons = last_windows(series, known)
    refused += [{settings.group or "series": series.names[group], "reason": why} for group, why in reasons.items()]
    if not len(first):
        raise UserError(
            f"INPUT: none of {len(reasons):,} series can be predicted; the first: {next(iter(reasons.values()))}. Give more rows "
            "of each series, or fix them."
        )
    group = (settings.group,) if settings.group else ()
    save(series, first, known, path, {**{n: n for n in group if n not in known.still}, _AS_GIVEN: settings.order})
    say(f"{len(series.order):,} rows, {len(first):,} of {len(series.bounds[0]):,} series are predicted")
    return LastWindows((*group, settings.order), len(first), refused)


def write_labelled_windows(summary: DatasetSummary, kinds: Mapping[str, str], path: Path) -> tuple[np.ndarray, int]:
    """Writes all windows with all labels as Parquet.

    Returns the order of the first future row of each window, int64 (n,), and the number of those left out, with a gap or a
    missing number.

    Args:
        summary: summary of the models' training data, which has `windows`.
        kinds: file -> csv, parquet, jsonl or tfrecord.
        path: the Parquet file.

    Raises:
        UserError: a row does not fit, no window is complete, or see `write_last_windows`.
    """
    known = KnownWindows.of(summary.windows or {})
    settings = known.settings
    refused: list[dict[str, Any]] = []
    series = _series(known, summary, kinds, (), refused)
    if refused:
        raise UserError(f"{refused[0]['file']}: {refused[0]['reason']} ({_number_of(refused):,} such rows). Fix them.")
    first = series.candidates(settings.length)
    ahead = series.missing([settings.label, *settings.known])
    complete = Completeness(series.breaks(known.step), series.missing(known.past), ahead)
    good = first[complete.consecutive(first, settings.length) & complete.complete(first, settings)]
    if not len(good):
        raise UserError(
            f"{', '.join(kinds)}: no series has {settings.length} consecutive rows with every number of a window. Give more rows."
        )
    save(series, good, known, path)
    return series.order[good + settings.past], len(first) - len(good)


def _series(
    known: KnownWindows,
    summary: DatasetSummary,
    kinds: Mapping[str, str],
    missing_values: Sequence[str],
    refused: list[dict[str, Any]],
) -> Series:
    """Returns the rows that fit, sorted; the others go to `refused`."""
    settings, parts, size = known.settings, [], 0
    for part in _parts(known, summary, kinds, missing_values, refused):
        parts.append(part)
        size += part.nbytes
        if size > MOST_BYTES:
            raise UserError(
                f"INPUT: the table has more than {MOST_BYTES >> 30} GiB in memory, where its series are sorted. Give the last "
                f"rows of each series, at least {settings.past}, or fewer series."
            )
    if not sum(len(part) for part in parts):
        why = f" Of the first row: {refused[0]['reason']}." if refused else ""
        raise UserError(f"INPUT: no usable rows in {', '.join(list(kinds)[:3])}.{why}")
    table = pa.concat_tables(_unified(parts))
    return Series.of(table, settings, unit_of(str(known.columns[settings.order]["meaning"])))


def _parts(
    known: KnownWindows,
    summary: DatasetSummary,
    kinds: Mapping[str, str],
    missing_values: Sequence[str],
    refused: list[dict[str, Any]],
) -> Iterator[pa.Table]:
    """Yields the rows that fit, as plain columns, and the order and group as given."""
    settings = known.settings
    features = [RawFeature(**{**c, "missing": [*c["missing"], *missing_values]}) for c in known.columns.values()]
    numbers = {f.name for f in features if f.dtype != "string"}
    options, missing = CsvOptions.of(summary.csv), (*summary.missing_values, *missing_values)
    needed = [n for n in (settings.order, settings.group, settings.label, *known.past) if n is not None]
    for path, kind in kinds.items():
        folders = {n: text for n, text in folder_columns(path).items() if n in known.columns}
        unread, before = BadRows(_NO_LIMIT), 0
        with closing(reader(kind, options, lambda name: name in known.columns)(path, unread, missing)) as batches:
            for read in batches:
                batch = with_folders(read, folders)
                if absent := [n for n in needed if n not in batch.schema.names]:
                    raise UserError(
                        f"column {absent[0]!r} is missing in {os.path.basename(path)}. Columns: {in_a_line(batch.schema.names)}. "
                        f"Needed: {in_a_line(dict.fromkeys(needed))}."
                    )
                given = plain_numbers(batch, numbers, options) if kind == "csv" else batch
                fitted = fit_rows(given, features)
                refused += [{"file": path, "row": before + i, "reason": why} for i, why in sorted(fitted.misfits.items())]
                columns = {f.name: single(fitted.fitted[f.name].values) for f in features}
                fits = fitted.fits
                for name in (n for n in (settings.order, settings.group) if n is not None):
                    absent_here = fits & columns[name].is_null().to_numpy(zero_copy_only=False)
                    why = f"{name} is missing"
                    refused += [{"file": path, "row": before + int(i), "reason": why} for i in np.flatnonzero(absent_here)]
                    fits = fits & ~absent_here
                before += batch.num_rows
                yield pa.table({**columns, _AS_GIVEN: batch.column(settings.order)}).filter(pa.array(fits))
        refused += [{**sample} for sample in unread.samples]
        if more := unread.count - len(unread.samples):
            refused.append({"file": path, "reason": f"and {more} more that could not be read", "number": more})


def _unified(parts: Sequence[pa.Table]) -> list[pa.Table]:
    """Returns the tables with the same types: the order as given becomes text if files differ."""
    if len({p[_AS_GIVEN].type for p in parts}) > 1:
        place = parts[0].column_names.index(_AS_GIVEN)
        parts = [p.set_column(place, _AS_GIVEN, p[_AS_GIVEN].cast(pa.string())) for p in parts]
    return list(parts)


def last_windows(series: Series, known: KnownWindows) -> tuple[np.ndarray, dict[int, str]]:
    """Returns the first row of the last window of each series that has one, and group -> reason for the others."""
    settings = known.settings
    breaks, without_label = series.breaks(known.step), series.missing([settings.label])
    past, ahead = series.missing(known.past), series.missing(settings.known)
    first, reasons = [], {}
    for begin, end in zip(*series.bounds, strict=True):
        group = int(series.groups[begin])
        labelled = np.flatnonzero(~without_label[begin:end])
        last = int(begin + labelled[-1]) if len(labelled) else -1
        start = last - settings.past + 1
        upto = last + 1 + (settings.future if settings.known else 0)
        if start < begin:
            rows = last - int(begin) + 1 if len(labelled) else 0
            reasons[group] = f"has {rows} rows up to the last one with {settings.label!r}, and a window has {settings.past}"
        elif past[start : last + 1].any():
            row = start + int(past[start : last + 1].argmax())
            reasons[group] = f"a number is missing at {series.place(row, settings)}"
        elif upto > end:
            rows = int(end) - last - 1
            reasons[group] = f"has {rows} rows with what is known ahead ({', '.join(settings.known)}), not {settings.future}"
        elif breaks[start + 1 : upto].any():
            row = start + 1 + int(breaks[start + 1 : upto].argmax())
            reasons[group] = f"{series.place(row, settings)} does not follow the row before by the usual step"
        elif ahead[last + 1 : upto].any():
            row = last + 1 + int(ahead[last + 1 : upto].argmax())
            reasons[group] = f"a number that is known ahead is missing at {series.place(row, settings)}"
        else:
            first.append(start)
    return np.asarray(first, dtype=np.int64), reasons
