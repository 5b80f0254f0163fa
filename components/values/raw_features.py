"""Raw features of a bundle, and rows of them as input of its transform graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.values.spelling import FLOAT, INTEGER
from switchyard.components.values.targets import number_of


@dataclass(frozen=True)
class RawFeature:
    """One raw feature.

    Attributes:
        name: name of the feature.
        dtype: `float32`, `int64` or `string`.
        width: number of values per row; None when values may be missing.
        is_list: when `width` is None, whether a row may hold several values (else at most one).
        meaning: kind of the values in the training data: `integer`, `float`, `text`, `boolean` (0 and 1), `timestamp[UNIT]`
            (since 1970, UTC), `time[UNIT]` (since midnight); UNIT is s, ms, us or ns. Empty in older bundles: unknown.
        spelled: for a text, styles of numbers, booleans and dates in the training data, see
            `components.values.spelling.styles`.
        counts: for a timestamp, smallest and largest count in the training data; empty when unknown.
        missing: texts that mean missing in this column, in addition to the usual ones unless it is a text column.
        is_bytes: for a text, whether the data holds values that are not UTF-8, such as images or serialized messages.
        image: of a column of JPEG or PNG images, the height, width and channels that the transform graph decodes them to.
    """

    name: str
    dtype: str
    width: int | None
    is_list: bool = False
    meaning: str = ""
    spelled: Sequence[str] = ()
    missing: Sequence[str] = ()
    counts: Sequence[int] = ()
    is_bytes: bool = False
    image: Sequence[int] = ()

    @cached_property
    def is_scalar(self) -> bool:
        """Whether a row has one value, or at most one."""
        return self.width == 1 or (self.width is None and not self.is_list)

    @cached_property
    def holds_numbers(self) -> bool:
        """Whether any number is a value, of no other meaning and not missing."""
        if self.dtype == "string" or self.meaning not in ("", INTEGER, FLOAT):
            return False
        return not self.missing or all(number_of(m) is None for m in self.missing)


def raw_feature(name: str, summary: DatasetSummary, dtype: str | None = None, width: int | None = None) -> RawFeature:
    """Returns the raw feature of a data set's column.

    Args:
        name: name of the column.
        summary: summary of the data set.
        dtype: TensorFlow dtype; None to infer it from the column's type.
        width: see `RawFeature`.
    """
    kind = summary.columns.get(name, "")
    stored = kind.removeprefix("list of ")
    dtype = dtype or {"integer": "int64", "float": "float32"}.get(stored, "string")
    # The empty text is missing in a text column, because CSV has no other null. Older bundles do not list it.
    listed = [*([""] if stored == "string" and name in summary.meanings else []), *summary.missing_values]
    return RawFeature(
        name,
        dtype,
        width,
        width is None and (kind.startswith("list") or name in summary.sequences),
        meaning=summary.meanings.get(name, ""),
        spelled=summary.spelled.get(name, []),
        missing=listed,
        counts=summary.counts.get(name, []),
        is_bytes=name in summary.bytes_columns,
        image=summary.images.get(name, []),
    )


@dataclass(frozen=True)
class Ragged:
    """Values of a feature that may be missing, for B rows.

    Attributes:
        values: values of all rows, concatenated, (N,).
        lengths: number of values per row, int64 (B,); 0 means missing.
    """

    values: np.ndarray
    lengths: np.ndarray


# Raw feature -> values of B rows as input of the transform graph: (B, width) in the feature's dtype, texts as bytes in
# an object array; a feature without a fixed width is Ragged.
Columns = Mapping[str, "np.ndarray | Ragged"]


def concatenate(parts: Sequence[Columns]) -> Columns:
    """Returns the rows of several sets of columns as one."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, np.ndarray | Ragged] = {}
    for name, first in parts[0].items():
        columns: list[Any] = [p[name] for p in parts]
        if isinstance(first, Ragged):
            joined[name] = Ragged(np.concatenate([c.values for c in columns]), np.concatenate([c.lengths for c in columns]))
        else:
            joined[name] = np.concatenate(columns)
    return joined


def between(columns: Columns, start: int, stop: int) -> Columns:
    """Returns the rows from `start` to before `stop`."""
    found: dict[str, np.ndarray | Ragged] = {}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            first, last = (int(column.lengths[:row].sum()) for row in (start, stop))
            found[name] = Ragged(column.values[first:last], column.lengths[start:stop])
        else:
            found[name] = column[start:stop]
    return found
