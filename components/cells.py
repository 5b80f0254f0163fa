"""Single values to a trained column's type, column-wise: the rules that `components.conversion` applies to rows and lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components import spelling
from components.spelling import BOOLEAN, FLOAT, INTEGER, TEXT, TIME, TIMESTAMP, UNITS

FLOAT32_MAX = float(np.finfo(np.float32).max)
_EXACT = 2**53  # up to here float64 holds every whole number
_DAY = 86_400
_ARROW = {FLOAT: pa.float64(), TEXT: pa.binary()}


@dataclass(frozen=True)
class Target:
    """What values must become.

    Attributes:
        kind: integer, float, text, boolean, timestamp or time.
        unit: of the last two.
        is_list: a row may hold several values.
        spelled: of a text: the styles that training saw; None: training itself, numbers are written in the plain style.
        missing: texts that mean missing besides the usual ones (of a text column: all of them).
        unknown: a bundle that does not say what its integers were: dates are taken as whole seconds.
        limit: no larger numbers.
    """

    kind: str
    unit: str = ""
    is_list: bool = False
    spelled: Sequence[str] | None = None
    missing: tuple[str, ...] = ()
    unknown: bool = False
    limit: float = math.inf


@dataclass(frozen=True)
class Cells:
    """Converted values; those that do not fit are null and not `absent`.

    Attributes:
        values: int64, float64 or binary.
        absent: which of them are missing.
        words: texts that were taken as missing -> how many.
    """

    values: pa.Array
    absent: pa.Array
    words: Mapping[str, int] = field(default_factory=dict)


def arrow_type(target: Target) -> pa.DataType:
    """Returns the type of a target's values."""
    return _ARROW.get(target.kind, pa.int64())


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds several values a row."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts or bytes."""
    of = pa.types
    return bool(
        of.is_string(kind) or of.is_large_string(kind) or of.is_binary(kind) or of.is_large_binary(kind)
        or of.is_string_view(kind) or of.is_binary_view(kind) or of.is_fixed_size_binary(kind)
    )  # fmt: skip


def is_moment(kind: pa.DataType) -> bool:
    """Whether a column of this type holds dates, timestamps or times of day."""
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind))


def plain(column: pa.Array) -> pa.Array:
    """Returns a column without an encoding of its own: dictionaries decoded, half floats as float64."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_float16(column.type):
        column = pa.array(column.to_numpy(zero_copy_only=False).astype(np.float64), mask=_mask(column.is_null()))
    return column


def fit_cells(column: pa.Array, target: Target) -> Cells:
    """Converts values of any Arrow type but lists."""
    column = plain(column)
    kind = column.type
    if is_text(kind):
        return _from_text(column, target)
    absent = column.is_null(nan_is_null=True)
    values = _from_typed(column, target)
    if values is None:
        return Cells(pa.nulls(len(column), arrow_type(target)), absent)
    return _without_listed(_within_limit(values, target), absent, target)


def _from_typed(column: pa.Array, target: Target) -> pa.Array | None:
    """Returns numbers, booleans and times as the target's; None: none of them fits."""
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), arrow_type(target))
    if target.kind == TEXT:
        return _written(column, target)
    found = next((convert for is_it, convert in _CONVERTERS if is_it(column.type)), None)
    return found(column, target) if found else None


def _from_booleans(column: pa.Array, target: Target) -> pa.Array | None:
    return None if target.kind in (TIMESTAMP, TIME) else column.cast(pa.int8()).cast(arrow_type(target))


def _from_integers(column: pa.Array, target: Target) -> pa.Array:
    if target.kind == FLOAT:
        return column.cast(pa.float64(), safe=False)
    values = column.cast(pa.int64(), safe=False)
    if pa.types.is_uint64(column.type):
        values = _null_unless(pc.less_equal(column, pa.scalar(2**63 - 1, pa.uint64())), values)
    return _within_kind(values, target)


def _from_floats(column: pa.Array, target: Target) -> pa.Array:
    values = column.cast(pa.float64())
    if target.kind == FLOAT:
        return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values) if _any(pc.is_nan(values)) else values
    whole = pc.and_(pc.equal(values, pc.trunc(values)), pc.and_(pc.greater_equal(values, -(2.0**63)), pc.less(values, 2.0**63)))
    return _within_kind(_null_unless(whole, values).cast(pa.int64(), safe=False), target)


def _from_decimals(column: pa.Array, target: Target) -> pa.Array:
    if target.kind == FLOAT:
        return column.cast(pa.float64(), safe=False)
    whole = [None if v is None or v != int(v) or not -(2**63) <= v < 2**63 else int(v) for v in column.to_pylist()]
    return _within_kind(pa.array(whole, pa.int64()), target)


def _within_kind(values: pa.Array, target: Target) -> pa.Array:
    """Returns integers that are a boolean's, or a count of the target's unit; the others null."""
    if target.kind == BOOLEAN:
        return _null_unless(pc.or_(pc.equal(values, 0), pc.equal(values, 1)), values)
    if target.kind in (TIMESTAMP, TIME):
        scale = UNITS[target.unit]
        low, high = (0, _DAY) if target.kind == TIME else (spelling.FIRST_SECOND, spelling.LAST_SECOND + 1)
        low, high = max(low * scale, -(2**63)), min(high * scale, 2**63 - 1)
        return _null_unless(pc.and_(pc.greater_equal(values, low), pc.less(values, high)), values)
    return values


def _from_times(column: pa.Array, target: Target) -> pa.Array | None:
    counts, unit = counted(column)
    is_time = pa.types.is_time(column.type)
    if target.kind == (TIME if is_time else TIMESTAMP):
        return in_unit(counts, unit, target.unit)
    if target.unknown:
        values = counts if is_time else spelling.floor_divided(counts, UNITS[unit])
        return values.cast(arrow_type(target), safe=False)
    return None


_CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array, Target], pa.Array | None]], ...] = (
    (pa.types.is_boolean, _from_booleans),
    (pa.types.is_integer, _from_integers),
    (pa.types.is_floating, _from_floats),
    (pa.types.is_decimal, _from_decimals),
    (is_moment, _from_times),
)


def counted(column: pa.Array) -> tuple[pa.Array, str]:
    """Returns dates, timestamps or times of day as int64 counts of a unit."""
    kind = column.type
    if pa.types.is_date32(kind):
        return pc.multiply(column.cast(pa.int32()).cast(pa.int64()), _DAY), "s"
    if pa.types.is_date64(kind):
        return column.cast(pa.int64()), "ms"
    integers = column.cast(pa.int32()).cast(pa.int64()) if pa.types.is_time32(kind) else column.cast(pa.int64())
    return integers, kind.unit


def in_unit(values: pa.Array, unit: str, wanted: str) -> pa.Array:
    """Returns counts of one unit as those of another; null where they are not whole, or beyond 64 bits."""
    have, want = UNITS[unit], UNITS[wanted]
    if have == want:
        return values
    if have > want:
        factor = have // want
        divided = pc.divide(values, factor)
        return _null_unless(pc.equal(pc.multiply(divided, factor), values), divided)
    factor = want // have
    most = (2**63 - 1) // factor
    held = _null_unless(pc.and_(pc.less_equal(values, most), pc.greater_equal(values, -most)), values)
    return pc.multiply(held, factor)


def _from_text(column: pa.Array, target: Target) -> Cells:
    if target.kind == TEXT:
        values = column.cast(pa.binary())
        if target.missing:
            listed = pc.is_in(values, pa.array([m.encode() for m in target.missing], pa.binary()))
            values = _null_unless(pc.invert(listed), values) if _any(listed) else values
        return Cells(values, values.is_null())
    text = pc.utf8_trim_whitespace(as_text(column))
    words: dict[str, int] = {}
    try:
        values = _read(text, target)
    except pa.ArrowInvalid:
        listed = pc.is_in(text, spelling.words(target.missing))
        if _any(listed):
            counts = pc.value_counts(text.filter(listed))
            words = dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True))
            text = _null_unless(pc.invert(listed), text)
        values = _read_what_fits(text, target)
    absent = text.is_null()
    if target.kind == FLOAT:
        nan = pc.fill_null(pc.is_nan(values), False)
        absent, values = pc.or_(absent, nan), _null_unless(pc.invert(nan), values) if _any(nan) else values
    cells = _without_listed(_within_limit(values, target), absent, target)
    return Cells(cells.values, cells.absent, words)


def as_text(column: pa.Array) -> pa.Array:
    """Returns texts or bytes as UTF-8; what is none gets replacement characters, which fit nothing but a text column."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([None if v is None else v.decode("utf-8", "replace") for v in column.cast(pa.binary()).to_pylist()])


def _read_what_fits(text: pa.Array, target: Target) -> pa.Array:
    try:
        return _read(text, target)
    except pa.ArrowInvalid:
        pass
    encoded = text.dictionary_encode()
    found = [_read_one(encoded.dictionary.slice(i, 1), target) for i in range(len(encoded.dictionary))]
    return pa.array(found, arrow_type(target)).take(encoded.indices)


def _read_one(text: pa.Array, target: Target) -> Any:
    try:
        return _read(text, target)[0].as_py()
    except pa.ArrowInvalid:
        return None


def _read(text: pa.Array, target: Target) -> pa.Array:
    """Reads texts, all of which must fit.

    Raises:
        pa.ArrowInvalid: one does not.
    """
    if target.kind in (INTEGER, FLOAT):
        return _read_numbers(text, target)
    try:
        values, unit = spelling.read_texts(text, target.kind)
    except pa.ArrowInvalid:
        return _all_or_none(_within_kind(_read_whole(text), target), text)
    return _all_or_none(in_unit(values, unit, target.unit) if unit else values, text)


def _read_numbers(text: pa.Array, target: Target) -> pa.Array:
    try:
        return spelling.read_texts(text, FLOAT)[0] if target.kind == FLOAT else _read_whole(text)
    except pa.ArrowInvalid:
        # As a boolean of a format that has them is taken, and was in training.
        return spelling.read_texts(text, BOOLEAN)[0].cast(arrow_type(target))


def _read_whole(text: pa.Array) -> pa.Array:
    try:
        return spelling.read_texts(text, INTEGER)[0]
    except pa.ArrowInvalid:
        values = spelling.read_texts(text, FLOAT)[0]
    exact = pc.and_(pc.equal(values, pc.trunc(values)), pc.less(pc.abs(values), float(_EXACT)))
    return _all_or_none(_null_unless(exact, values).cast(pa.int64(), safe=False), text)


def _all_or_none(values: pa.Array, text: pa.Array) -> pa.Array:
    if values.null_count > text.null_count:
        raise pa.ArrowInvalid("a text does not fit")
    return values


def _written(column: pa.Array, target: Target) -> pa.Array | None:
    """Returns numbers, booleans and times as a text column spells them; null where it is unknown how, or another way was seen."""
    kind, of = column.type, pa.types
    if of.is_boolean(kind):
        style = spelling.one_style(target.spelled, spelling.BOOLEANS) if target.spelled is not None else "true"
        pair = {"true": ("true", "false"), "True": ("True", "False"), "TRUE": ("TRUE", "FALSE")}.get(style or "")
        return pc.if_else(column, *pair).cast(pa.binary()) if pair else None
    if is_moment(kind):
        return _written_times(column, target)
    if of.is_decimal(kind):
        return column.cast(pa.string()).cast(pa.binary()) if target.spelled is None else None
    if of.is_integer(kind) or of.is_floating(kind):
        return _written_numbers(column, target)
    return None


def _written_numbers(column: pa.Array, target: Target) -> pa.Array | None:
    seen = {"5"} if target.spelled is None else set(target.spelled) & set(spelling.NUMBERS)
    if not seen or "05" in seen or {"5", "5.0"} <= seen:
        return None
    if pa.types.is_floating(column.type):
        fractional = column.cast(pa.string())
        values = column.cast(pa.float64())
        exact = pc.and_(pc.equal(values, pc.trunc(values)), pc.less(pc.abs(values), float(_EXACT)))
        digits = _null_unless(exact, values).cast(pa.int64()).cast(pa.string())
        there = _null_unless(pc.invert(pc.is_nan(values)), fractional)
        written = pc.coalesce(pc.binary_join_element_wise(digits, ".0", "") if "5.0" in seen else digits, there)
    else:
        written = column.cast(pa.string())
        written = pc.binary_join_element_wise(written, ".0", "") if "5.0" in seen else written
    return written.cast(pa.binary())


def _written_times(column: pa.Array, target: Target) -> pa.Array | None:
    kind = column.type
    family = spelling.TIMES if pa.types.is_time(kind) else spelling.DATES if pa.types.is_date(kind) else spelling.MOMENTS
    style = spelling.one_style(target.spelled, family) if target.spelled is not None else family[0]
    if style is None:
        return None
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.timestamp(kind.unit))
    text = (column.cast(pa.date32()) if pa.types.is_date64(kind) else column).cast(pa.string())
    if not pa.types.is_date(kind):
        text = pc.replace_substring_regex(text, r"(\.\d*?)0+$", r"\1")
        text = pc.replace_substring_regex(text, r"\.$", "")
    return (pc.replace_substring(text, " ", "T") if "T" in style else text).cast(pa.binary())


def _within_limit(values: pa.Array, target: Target) -> pa.Array:
    if target.kind != FLOAT or target.limit == math.inf:
        return values
    return _null_unless(pc.less_equal(pc.abs(values), target.limit), values)


def _without_listed(values: pa.Array, absent: pa.Array, target: Target) -> Cells:
    """Numbers that `missing` lists by their text are missing, however they are spelled."""
    if not target.missing or target.kind not in (INTEGER, FLOAT):
        return Cells(values, absent)
    numbers = [n for n in map(number_of, target.missing) if n is not None and (target.kind == FLOAT or n.is_integer())]
    listed = pc.is_in(values, pa.array(numbers, pa.float64()).cast(values.type)) if numbers else pa.array([])
    if not numbers or not _any(listed):
        return Cells(values, absent)
    return Cells(_null_unless(pc.invert(listed), values), pc.or_(absent, listed))


def number_of(text: str) -> float | None:
    """Returns the number that a text in a list of missing values spells; None: it is a word."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) and abs(found) < _EXACT else None


def reason_of(value: Any, target: Target) -> str:
    """Returns what a target must hold, said of a value that it cannot take."""
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


def _null_unless(kept: pa.Array, values: pa.Array) -> pa.Array:
    return pc.if_else(kept, values, pa.scalar(None, values.type))


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())


def _mask(nulls: pa.Array) -> np.ndarray:
    found: np.ndarray = nulls.to_numpy(zero_copy_only=False)
    return found
