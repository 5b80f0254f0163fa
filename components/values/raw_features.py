"""The raw features of a bundle, and rows of them as its transform graph takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from switchyard.components.data.summary import DatasetSummary


@dataclass(frozen=True)
class RawFeature:
    """One raw feature.

    Attributes:
        name: its name.
        dtype: `float32`, `int64` or `string`.
        width: values a row; None: it may be missing.
        is_list: when `width` is None, a row may hold several values (else at most one).
        meaning: what the values were in the training data: `integer`, `float`, `text`, `boolean` (0 and 1), `timestamp[UNIT]`
            (since 1970, UTC), `time[UNIT]` (since midnight); UNIT is s, ms, us or ns. Empty: an older bundle, which does not say.
        spelled: of a text, how training spelled numbers, booleans and dates in it, see `components.values.spelling.styles`.
        counts: of a timestamp, the smallest and the largest count in the training data; empty: not known.
        missing: texts that mean missing in this column, besides the usual ones where it is no text.
        is_bytes: of a text, the data holds some that are no UTF-8: images, serialized messages.
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


def raw_feature(name: str, summary: DatasetSummary, dtype: str | None = None, width: int | None = None) -> RawFeature:
    """Returns a column of a data set as a model's raw feature.

    Args:
        name: the column's.
        summary: of the data set.
        dtype: TensorFlow's; None: by the column's type.
        width: see `RawFeature`.
    """
    kind = summary.columns.get(name, "")
    stored = kind.removeprefix("list of ")
    dtype = dtype or {"integer": "int64", "float": "float32"}.get(stored, "string")
    # An empty text is missing in a text column: a CSV knows no other. Bundles from before that do not have it in their list.
    listed = [*([""] if stored == "string" and name in summary.meanings else []), *summary.missing_values]
    return RawFeature(
        name,
        dtype,
        width,
        width is None and kind.startswith("list"),
        meaning=summary.meanings.get(name, ""),
        spelled=summary.spelled.get(name, []),
        missing=listed,
        counts=summary.counts.get(name, []),
        is_bytes=name in summary.bytes_columns,
    )


@dataclass(frozen=True)
class Ragged:
    """A feature that may be missing, of B rows.

    Attributes:
        values: the values of all rows, one after the other (N,).
        lengths: how many each row has, int64 (B,); 0: missing.
    """

    values: np.ndarray
    lengths: np.ndarray


# Raw feature -> values of B rows as the transform graph takes them: (B, width) in the feature's dtype, texts as bytes in
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
