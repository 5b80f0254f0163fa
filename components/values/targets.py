"""Target types of values, and predicates on Arrow types."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.values.spelling import BOOLEAN, FLOAT, INTEGER, TEXT, TIME, TIMESTAMP

FLOAT32_MAX = float(np.finfo(np.float32).max)
EXACT = 2**53  # float64 holds every whole number up to this one
_ARROW = {FLOAT: pa.float64(), TEXT: pa.binary()}


@dataclass(frozen=True)
class Target:
    """Type that values are converted to.

    Attributes:
        kind: integer, float, text, boolean, timestamp or time.
        unit: unit of a timestamp or time.
        is_list: whether a row may hold several values.
        spelled: for a text, styles observed in training; None during training, which writes numbers in the plain style.
        missing: texts that mean missing, in addition to the usual ones (for a text column: all of them).
        unknown: True for a bundle that does not record the meaning of its integers: dates become whole seconds.
        limit: largest allowed absolute value.
        counts: for a timestamp, smallest and largest count in the training data. A number far outside has another unit.
    """

    kind: str
    unit: str = ""
    is_list: bool = False
    spelled: Sequence[str] | None = None
    missing: tuple[str, ...] = ()
    unknown: bool = False
    limit: float = math.inf
    counts: tuple[int, ...] = ()


def arrow_type(target: Target) -> pa.DataType:
    """Returns the Arrow type of a target's values."""
    return _ARROW.get(target.kind, pa.int64())


def is_list(kind: pa.DataType) -> bool:
    """Returns whether a column of this type holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Returns whether a column of this type holds texts or bytes."""
    of = pa.types
    return bool(
        of.is_string(kind) or of.is_large_string(kind) or of.is_binary(kind) or of.is_large_binary(kind)
        or of.is_string_view(kind) or of.is_binary_view(kind) or of.is_fixed_size_binary(kind)
    )  # fmt: skip


def is_moment(kind: pa.DataType) -> bool:
    """Returns whether a column of this type holds dates, timestamps or times of day."""
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind))


def plain(column: pa.Array) -> pa.Array:
    """Returns a column without encodings: dictionaries decoded, half floats as float64."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_float16(column.type):
        column = pa.array(column.to_numpy(zero_copy_only=False).astype(np.float64), mask=_mask(column.is_null()))
    return column


def number_of(text: str) -> float | None:
    """Returns the number that a text in a list of missing values spells, infinity included; None for words and NaN."""
    try:
        found = float(text)
    except ValueError:
        return None
    return None if math.isnan(found) else found


def reason_of(value: Any, target: Target) -> str:
    """Returns what a target must hold, as the reason why a value does not fit."""
    if target.kind == TEXT and isinstance(value, dict):
        return 'must hold texts, or bytes as {"b64": ...} in base64'
    value = value.item() if isinstance(value, np.number) else value  # 2^63 is beyond a half float
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if target.kind in (INTEGER, FLOAT) and number and not math.isnan(value):
        if target.kind == FLOAT:
            return "must hold numbers that fit float32"
        return "must hold numbers that fit int64" if not -(2**63) <= value < 2**63 else "must hold whole numbers"
    return _REASONS[target.kind](target)


_REASONS: dict[str, Callable[[Target], str]] = {
    INTEGER: lambda _: "must hold numbers",
    FLOAT: lambda _: "must hold numbers",
    TEXT: lambda _: "must hold texts",
    BOOLEAN: lambda _: "must hold true or false",
    TIMESTAMP: lambda t: f"must hold dates or times (ISO 8601, or counts of {t.unit} since 1970), no finer than {t.unit}",
    TIME: lambda t: f"must hold times of day (09:30:00, or counts of {t.unit} since midnight), no finer than {t.unit}",
}


def null_unless(kept: pa.Array, values: pa.Array) -> pa.Array:
    """Returns values, null where `kept` is False."""
    return pc.if_else(kept, values, pa.scalar(None, values.type))


def any_true(mask: pa.Array) -> bool:
    """Returns whether a mask has a True value."""
    return bool(pc.any(mask).as_py())


def _mask(nulls: pa.Array) -> np.ndarray:
    found: np.ndarray = nulls.to_numpy(zero_copy_only=False)
    return found
