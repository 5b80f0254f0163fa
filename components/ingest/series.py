"""The rows of a long table sorted as time series, and which consecutive ones make a window."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.data.windows import WindowSettings
from switchyard.components.errors import UserError

# Units of `RawFeature.meaning` in nanoseconds.
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@dataclass(frozen=True)
class Series:
    """The rows of a long table, sorted by group and order.

    Attributes:
        table: the rows; each column is plain (no lists), combined into one chunk.
        groups: number of each row's group, int (n,), ascending.
        order: int64 (n,), ascending in each group.
        names: text of each group.
        unit: unit of the order if it is a time, see `RawFeature.meaning`, else empty.
    """

    table: pa.Table
    groups: np.ndarray
    order: np.ndarray
    names: list[str]
    unit: str = ""

    @classmethod
    def of(cls, table: pa.Table, settings: WindowSettings, unit: str) -> Series:
        """Sorts a table.

        Args:
            table: plain columns; the order is int64.
            settings: names of the columns.
            unit: see the class.

        Raises:
            UserError: a row has no order or no group, or two rows of a group have the same order.
        """
        for key, name in {"order": settings.order, "group": settings.group}.items():
            if name is not None and (nulls := table[name].null_count):
                raise UserError(
                    f"data.windows.{key}: {nulls:,} of {table.num_rows:,} rows have no value of {name!r}; fix the data, or leave "
                    "these rows out of it."
                )
        order = table[settings.order].to_numpy()
        codes, names = np.zeros(table.num_rows, np.int64), [""]
        if settings.group is not None:
            encoded = pc.dictionary_encode(table[settings.group].combine_chunks())
            codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
            names = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in encoded.dictionary.to_pylist()]
        rows = np.lexsort((order, codes))
        found = cls(table.take(pa.array(rows)).combine_chunks(), codes[rows], order[rows], names, unit)
        found._check_distinct(settings)
        return found

    def _check_distinct(self, settings: WindowSettings) -> None:
        same = np.flatnonzero((np.diff(self.order) == 0) & (np.diff(self.groups) == 0))
        if len(same):
            raise UserError(
                f"data.windows.order: {len(same):,} rows have the same {settings.order!r} as another row of their series, "
                f"for example {self.place(int(same[0]), settings)}; fix the data, or name the column of the series by "
                "data.windows.group."
            )

    def place(self, row: int, settings: WindowSettings) -> str:
        """Returns the group and the order of a row as text."""
        group = f" of {settings.group} {self.names[self.groups[row]]!r}" if settings.group else ""
        return f"{shown(int(self.order[row]), self.unit)}{group}"

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """First row of each group, and the row after its last one."""
        first = np.flatnonzero(np.diff(self.groups, prepend=-1))
        return first, np.append(first[1:], len(self.groups)).astype(first.dtype)

    def candidates(self, length: int) -> np.ndarray:
        """Returns each row with which `length` rows of one group start, int (m,); they may have gaps."""
        found = [np.arange(begin, end - length + 1) for begin, end in zip(*self.bounds, strict=True)]
        return np.concatenate(found).astype(np.int64)

    def step(self) -> int:
        """Returns the most frequent difference between the orders of neighbours; 1 if no group has two rows."""
        differences = np.diff(self.order)[np.diff(self.groups) == 0]
        if not len(differences):
            return 1
        values, counts = np.unique(differences, return_counts=True)
        return int(values[counts.argmax()])

    def breaks(self, step: int | None) -> np.ndarray:
        """Returns whether each row does not follow the row before, bool (n,); `step` None: all rows of a group follow."""
        found = np.diff(self.groups, prepend=-1) != 0
        if step is not None:
            found |= np.diff(self.order, prepend=0) != step
        return np.asarray(found)

    def missing(self, columns: Collection[str]) -> np.ndarray:
        """Returns whether each row lacks a value of one of the columns, bool (n,)."""
        found = np.zeros(len(self.order), dtype=bool)
        for name in columns:
            if self.table[name].null_count:
                found |= self.table[name].is_null().to_numpy()
        return found


@dataclass(frozen=True)
class Completeness:
    """Which runs of rows are without a gap and without a missing number.

    Args:
        breaks: see `Series.breaks`.
        past: whether a row lacks a number that the past needs, bool (n,).
        ahead: the same for the future: what is known ahead, and the label.
    """

    breaks: np.ndarray
    past: np.ndarray
    ahead: np.ndarray

    def consecutive(self, first: np.ndarray, rows: int) -> np.ndarray:
        """Returns whether each of the rows `first` and the next ones, `rows` in all, follow each other, bool (m,)."""
        return self._none(self.breaks, first + 1, rows - 1)

    def complete(self, first: np.ndarray, settings: WindowSettings) -> np.ndarray:
        """Returns whether no number is missing in the window that starts at each of the rows `first`, bool (m,)."""
        ahead = self._none(self.ahead, first + settings.past, settings.future)
        return np.asarray(self._none(self.past, first, settings.past) & ahead)

    def _none(self, mask: np.ndarray, first: np.ndarray, rows: int) -> np.ndarray:
        total = np.concatenate([[0], np.cumsum(mask)])
        found: np.ndarray = total[first + rows] == total[first]
        return found


def borders(order: np.ndarray, weights: Mapping[str, float], splits: Sequence[str]) -> np.ndarray:
    """Returns the first order of each period but the first one, int64 (splits - 1,).

    The shares are of the distinct values of the order, so that they do not depend on how many series a time has.
    """
    distinct = np.unique(order)
    shares = np.cumsum([weights[s] for s in splits])
    places = np.rint(shares[:-1] / shares[-1] * len(distinct)).astype(int)
    found: np.ndarray = distinct[places.clip(max=len(distinct) - 1)]
    return found


def shown(order: int, unit: str) -> str:
    """Returns an order as text: a date, a timestamp, or a number."""
    if not unit:
        return str(order)
    moment = np.array(order, f"datetime64[{unit}]").astype("datetime64[us]").item()
    return moment.isoformat(sep=" ").removesuffix(" 00:00:00") if isinstance(moment, datetime.datetime) else str(order)


def shown_step(step: int, unit: str) -> str:
    """Returns a step as text, such as `1 day, 0:00:00`."""
    return str(datetime.timedelta(microseconds=step * _NANOSECONDS[unit] // 1000)) if unit else str(step)
