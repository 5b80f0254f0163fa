"""Reads a long table of time series into memory and writes its windows as files, one per split, which ingest then reads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from switchyard.components.data.summary import TRAIN
from switchyard.components.data.windows import KnownWindows, WindowSettings, ahead_name
from switchyard.components.errors import UserError, did_you_mean
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.column_types import EMPTY, FLOAT, INTEGER, STRING, ColumnType
from switchyard.components.ingest.columns_seen import located
from switchyard.components.ingest.declared import TEXT
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.ingest.scan import Scan, read_batches, scan
from switchyard.components.ingest.series import Completeness, Series, borders, shown, shown_step
from switchyard.components.ingest.typed import MisfitError, TypedColumns
from switchyard.components.ingest.window_files import save
from switchyard.components.progress import say
from switchyard.components.tasks import REGRESSION
from switchyard.components.text.visible import in_a_line
from switchyard.components.values.conversion import single
from switchyard.components.values.raw_features import RawFeature
from switchyard.components.values.spelling import BOOLEAN, TIMESTAMP, unit_of
from switchyard.components.values.spelling import FLOAT as FLOATS
from switchyard.components.values.spelling import INTEGER as INTEGERS

# Upper bound on the long table in memory, in bytes.
MOST_BYTES = 4 << 30
_NUMBERS = (INTEGERS, FLOATS, BOOLEAN)


@dataclass(frozen=True)
class Windowed:
    """What ingest reads in place of a long table.

    Attributes:
        spec: the windows as Parquet files, or the input itself if it is no long table.
        known: how the windows were made; None if there are none.
        notes: warnings about the long table and its windows.
        keys: see `DatasetSummary.keys`.
    """

    spec: InputSpec
    known: KnownWindows | None = None
    notes: list[str] = field(default_factory=list)
    keys: int | None = None


@dataclass(frozen=True)
class Roles:
    """The columns of a long table by what becomes of them; `past`: lists of past values, `still`: the last past value."""

    past: list[str]
    still: list[str]


def first_rows(spec: InputSpec, bad: BadRows) -> Scan:
    """Returns what the first rows contain; those of a long table with the columns of windows.

    Raises:
        UserError: see `scan`; a column that windows cannot hold.
    """
    if spec.windows is None:
        return scan(spec, bad, peek=True)
    settings = WindowSettings(**spec.windows)
    found = scan(long_table(spec, settings), bad, peek=True)
    roles = roles_of(found.types, settings, spec.exclude, is_partial=found.is_partial)
    types = {n: replace(found.types[n], is_list=settings.past > 1) for n in roles.past}
    types |= {ahead_name(n): replace(found.types[n], is_list=True) for n in settings.known}
    types |= {n: found.types[n] for n in roles.still}
    types |= dict.fromkeys(settings.targets, found.types[settings.label])
    return replace(found, task=spec.task, types=types, label_counts={}, targets=settings.targets)


def long_table(spec: InputSpec, settings: WindowSettings) -> InputSpec:
    """Returns the specification of the long table itself; an excluded group or order is read."""
    needed = (settings.order, settings.group)
    return replace(
        spec,
        windows=None,
        label=settings.label,
        task=REGRESSION,
        targets=(),
        exclude=[n for n in spec.exclude if n not in needed],
    )


def roles_of(types: Mapping[str, ColumnType], settings: WindowSettings, excluded: Sequence[str], *, is_partial: bool) -> Roles:
    """Returns the columns by what becomes of them.

    Args:
        types: types of the long table's columns.
        settings: the windows.
        excluded: `data.exclude`, which may list the group.
        is_partial: whether only the first rows were read, so that a column may seem empty.

    Raises:
        UserError: a configured column does not exist, or a column has a type that windows cannot hold.
    """
    named: dict[str, Sequence[str]] = {"order": [settings.order], "group": [settings.group] if settings.group else []}
    named |= {"known": settings.known, "static": settings.static}
    for key, names in named.items():
        for name in names:
            if name not in types:
                raise UserError(
                    f"data.windows.{key}: unknown column {name!r}.{did_you_mean(name, types)} Columns: {in_a_line(types)}."
                )
    if types[settings.label].kind == STRING:
        raise UserError(
            f"label: {settings.label!r} holds texts or true and false, and windows forecast numbers. Write 0 and 1 for these."
        )
    used = {n: t for n, t in types.items() if t.kind != EMPTY or (is_partial and n != settings.order)}
    kind = types[settings.order].meaning
    if types[settings.order].is_list or kind.partition("[")[0] not in (INTEGERS, TIMESTAMP):
        raise UserError(
            f"data.windows.order: {settings.order!r} holds values of type {kind}; rows are ordered by dates, timestamps or whole "
            "numbers."
        )
    if lists := [n for n, t in used.items() if t.is_list]:
        raise UserError(
            f"data.windows: {lists[0]!r} holds lists, which windows cannot hold. Exclude it: data.exclude: [{lists[0]}]."
        )
    if not is_partial and (empty := sorted({n for names in named.values() for n in names} - used.keys())):
        raise UserError(f"data.windows: column {empty[0]!r} has no value in any row; fix the data, or choose another column.")
    numbers = {n for n, t in used.items() if t.kind in (INTEGER, FLOAT, EMPTY) and t.meaning in (*_NUMBERS, EMPTY)}
    for key in ("known", "static"):
        for name in named[key]:
            if name not in numbers:
                raise UserError(
                    f"data.windows.{key}: {name!r} holds values of type {used[name].meaning}, and it must be a number."
                )
    others = [n for n in used if n != settings.order and not (n == settings.group and n in excluded)]
    past = [n for n in others if n in numbers and n not in (settings.group, *settings.static)]
    taken = {*others, settings.order}
    made = [*settings.targets, *map(ahead_name, settings.known)]
    if twice := sorted(taken & set(made)):
        raise UserError(f"data.windows: {twice[0]!r} is a column of the data and the name of a column of windows; rename it.")
    return Roles(past, [n for n in others if n not in past])


@contextmanager
def windowed(spec: InputSpec, bad: BadRows) -> Iterator[Windowed]:
    """Yields what ingest reads: for a long table its windows, as temporary files.

    Raises:
        UserError: see `scan`; the order has gaps or repeats, a split has no windows, or the table does not fit into memory.
    """
    if spec.windows is None:
        yield Windowed(spec)
        return
    settings = WindowSettings(**spec.windows)
    long = long_table(spec, settings)
    found = scan(long, bad)
    if settings.gaps == "ignore" and bad.count:
        raise UserError(
            f"data.windows.gaps: {bad.count:,} rows are bad or have no label, and ignore would take the rows around them as "
            f"consecutive: {bad.first(1).strip()}. Fix them or leave them out of the data, or set gaps to drop."
        )
    roles = roles_of(found.types, settings, spec.exclude, is_partial=False)
    typed = TypedColumns(found.types, spec.missing_values or (), [settings.label])
    unit = unit_of(found.types[settings.order].meaning)
    table = _read(long, found, typed, [settings.order, *([settings.group] if settings.group else []), *roles.past, *roles.still])
    typed.check()
    series = Series.of(table, settings, unit)
    step = None if settings.gaps == "ignore" else series.step()
    first, dropped = _windows(series, settings, roles, step)
    by_split, straddling = _by_split(series, first, settings, spec.weights)
    dropped["windows that straddle the border of two splits"] = straddling
    notes = [*found.notes, *typed.notes()]
    notes += [f"data.windows: {count:,} {reason}: left out" for reason, count in dropped.items() if count]
    written = [n for n in (settings.order, settings.group, *roles.past, *roles.still) if n is not None]
    columns = {n: asdict(_raw(n, found.types[n], typed, spec.missing_values or ())) for n in dict.fromkeys(written)}
    begins = {s: series.order[rows + settings.past] for s, rows in by_split.items() if s != TRAIN}
    rows_at = {s: np.unique(order, return_counts=True)[1].tolist() for s, order in begins.items()}
    known = KnownWindows(settings, step, columns, roles.past, roles.still, dropped, rows_at)
    with tempfile.TemporaryDirectory(prefix="switchyard-windows-") as folder:
        files = {}
        for split, rows in by_split.items():
            files[split] = Path(folder) / f"{split}.parquet"
            save(series, rows, known, files[split])
            say(f"{len(rows):,} windows of {split} written")
        texts = {n: TEXT for n in roles.still if found.types[n].kind == STRING}
        yield Windowed(
            replace(
                spec,
                windows=None,
                path=(),
                weights={},
                split_paths={s: [str(f)] for s, f in files.items()},
                format="parquet",
                exclude=(),
                columns=texts,
                csv={},
                max_bad_rows=0,
            ),
            known,
            notes,
            max(1, len(by_split[TRAIN]) // settings.length),
        )


def _raw(name: str, kind: ColumnType, typed: TypedColumns, missing: Sequence[str]) -> RawFeature:
    """Returns a column of the long table as a raw feature that may be missing."""
    dtype = {INTEGER: "int64", FLOAT: "float32"}.get(kind.kind, "string")
    return RawFeature(
        name,
        dtype,
        None,
        meaning=kind.meaning,
        spelled=sorted(typed.spelled.get(name, ())),
        missing=[*([""] if dtype == "string" else []), *missing],
        counts=typed.counts.get(name, []),
        is_bytes=name in typed.bytes_columns,
    )


def _read(spec: InputSpec, found: Scan, typed: TypedColumns, names: Sequence[str]) -> pa.Table:
    """Returns the long table with plain columns.

    Raises:
        UserError: it does not fit into memory.
    """
    numeric = {n for n, t in found.types.items() if t.kind in (INTEGER, FLOAT)}
    parts, size = [], 0
    for file in (f for group in spec.files().values() for f in group):
        for batch in read_batches(spec, file, BadRows(0), numeric=numeric):
            try:
                lists = typed.convert(batch)
            except MisfitError as error:
                raise located(spec, file, error.column, error) from None
            plain = [single(lists.column(n)) for n in dict.fromkeys(names)]
            parts.append(pa.table(plain, names=list(dict.fromkeys(names))))
            size += parts[-1].nbytes
            if size > MOST_BYTES:
                raise UserError(
                    f"data.windows: the table has more than {MOST_BYTES >> 30} GiB in memory, where its series are sorted. "
                    "Exclude columns by data.exclude, give fewer series or years, or make the windows outside, as list columns."
                )
    return pa.concat_tables(parts)


def _windows(series: Series, settings: WindowSettings, roles: Roles, step: int | None) -> tuple[np.ndarray, dict[str, int]]:
    """Returns the first rows of the windows, and reason -> series and windows left out.

    Raises:
        UserError: there are gaps, which are refused, or no series is long enough.
    """
    begin, end = series.bounds
    rows = end - begin
    if not (rows >= settings.length).any():
        raise UserError(
            f"data.windows: no series has the {settings.length} rows of a window (past: {settings.past}, future: "
            f"{settings.future}); the longest of {len(rows):,} has {rows.max()}. Give smaller values."
        )
    short = rows < settings.length
    first = series.candidates(settings.length)
    breaks, past = series.breaks(step), series.missing(roles.past)
    if settings.gaps == "refuse":
        _refuse_gaps(series, settings, roles, breaks, past)
    complete = Completeness(breaks, past, series.missing(settings.known))
    good = complete.consecutive(first, settings.length)
    known = complete.complete(first, settings)
    dropped = {
        f"series with fewer rows than a window's {settings.length}": int(short.sum()),
        "windows with a gap": int((~good).sum()),
        "windows with a missing number": int((good & ~known).sum()),
    }
    if not (good & known).any():
        listed = "; ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
        raise UserError(
            f"data.windows: no window is complete ({listed}). Fill in what is missing, exclude columns that lack numbers by "
            "data.exclude, or give smaller values of past and future."
        )
    return first[good & known], dropped


def _refuse_gaps(series: Series, settings: WindowSettings, roles: Roles, breaks: np.ndarray, past: np.ndarray) -> None:
    begin, _ = series.bounds
    gaps = np.setdiff1d(np.flatnonzero(breaks), begin)
    others = "or set data.windows.gaps: drop leaves out the windows there"
    if len(gaps):
        step = shown_step(series.step(), series.unit)
        raise UserError(
            f"data.windows.gaps: {len(gaps):,} rows do not follow the one before by the usual step of {settings.order!r}, {step};"
            f" the first is {series.place(int(gaps[0]), settings)}. Add the rows that are missing (bad rows and rows without a "
            f"label are, too), {others}, ignore takes rows as consecutive."
        )
    if past.any():
        row = int(past.argmax())
        name = next(n for n in roles.past if not series.table[n][row].is_valid)
        raise UserError(
            f"data.windows.gaps: {int(past.sum()):,} rows lack a number, the first is {name!r} of {series.place(row, settings)}. "
            f"Nothing may be missing in a list of past values: fill it in, exclude the column by data.exclude, {others}."
        )


def _by_split(
    series: Series, first: np.ndarray, settings: WindowSettings, weights: Mapping[str, float]
) -> tuple[dict[str, np.ndarray], int]:
    """Returns split -> first rows of its windows, by time and group, and the number of windows that straddle a border.

    A window belongs to the period that holds its whole future. Its past may lie in an earlier one: it is known by then.

    Raises:
        UserError: a split has no windows.
    """
    at = borders(series.order, weights, settings.splits)
    begin, end = series.order[first + settings.past], series.order[first + settings.length - 1]
    period = np.searchsorted(at, begin, side="right")
    inside = period == np.searchsorted(at, end, side="right")
    found = {}
    for number, split in enumerate(settings.splits):
        mine = inside & (period == number)
        rows, starts = first[mine], begin[mine]
        if not len(rows):
            edges = [shown(int(a), series.unit) for a in (series.order.min(), *at)]
            upto = f" before {edges[number + 1]}" if number + 1 < len(edges) else ""
            raise UserError(
                f"data.splits: the split {split!r} has no windows: none of {len(first):,} has its {settings.future} future rows "
                f"from {edges[number]} on{upto}. Give it a larger weight, or more data."
            )
        found[split] = rows[np.lexsort((series.groups[rows], starts))]
    return found, int((~inside).sum())
