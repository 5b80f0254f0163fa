"""Infers the type of a column over all its batches: the kinds of values observed and the one type that holds them all.

The type follows from the set of all values, never from where a batch or a file ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError
from switchyard.components.values import spelling
from switchyard.components.values.cells import FLOAT32_MAX, Target, counted, is_list, is_moment, number_of, plain
from switchyard.components.values.cells import is_text as holds_text
from switchyard.components.values.conversion import Fitted, fit_target
from switchyard.components.values.spelling import BOOLEAN, TEXT, TIME, TIMESTAMP, UNITS

EMPTY, INTEGER, FLOAT, STRING = "empty", "integer", "float", "string"
# Integers beyond 64 bits. Kept apart from other integers because they become floats in a column that also holds floats.
BEYOND = "beyond"
_NUMBERS = frozenset({INTEGER, FLOAT, BEYOND})
TEXTS_OF_NUMBERS = frozenset(f"text:{kind}" for kind in _NUMBERS)
_STORED = {BOOLEAN: INTEGER, TIMESTAMP: INTEGER, TIME: INTEGER, BEYOND: FLOAT}
_FIRST = 100
_WHOLE = r"^[+-]?\d+$"
_SHOWN = 3


class UnusableColumnError(UserError):
    """A column that cannot be a feature; `is_bad` maps an array of it to a mask of the offending values."""

    def __init__(self, message: str, is_bad: Callable[[pa.Array], pa.Array] | None = None) -> None:
        super().__init__(message)
        self.is_bad = is_bad


@dataclass(frozen=True)
class ColumnType:
    """The inferred type of a column.

    Attributes:
        kind: storage type: empty, integer, float or string.
        is_list: True when a row may hold several values.
        seen: kinds of the observed values; kinds parsed from texts have the prefix `text:`.
        unit: for dates and times, the coarsest unit in which all values are whole.
    """

    kind: str
    is_list: bool = False
    seen: frozenset[str] = field(default=frozenset(), compare=False)
    unit: str = field(default="", compare=False)

    @classmethod
    def of(cls, seen: Collection[str], *, is_list: bool = False, unit: str = "") -> ColumnType:
        """Returns the narrowest type that holds all observed kinds."""
        value = _value_kind(seen)
        kind = STRING if value == TEXT else _STORED.get(value, value)
        return cls(kind, is_list, frozenset(seen), unit or ("s" if value in (TIMESTAMP, TIME) else ""))

    def widen(self, other: ColumnType) -> ColumnType:
        """Returns the narrowest type that holds both."""
        unit = max(self.unit, other.unit, key=lambda u: UNITS.get(u, 0))
        return ColumnType.of(self._seen() | other._seen(), is_list=self.is_list or other.is_list, unit=unit)

    @property
    def meaning(self) -> str:
        """Meaning of the values, in the form of `RawFeature.meaning`."""
        value = _value_kind(self._seen())
        return f"{value}[{self.unit}]" if value in (TIMESTAMP, TIME) else FLOAT if value == BEYOND else value

    @property
    def is_mixed(self) -> bool:
        """True when the column became text although no file holds text in it: dates beside numbers of unknown unit."""
        seen = self._seen()
        return self.kind == STRING and STRING not in seen and any(not s.startswith("text:") for s in seen)

    @property
    def is_beyond(self) -> bool:
        """True when all values are whole numbers and some exceed 64 bits."""
        return _value_kind(self._seen()) == BEYOND

    def _seen(self) -> frozenset[str]:
        return self.seen or (frozenset() if self.kind == EMPTY else frozenset({self.kind}))


def _value_kind(seen: Collection[str]) -> str:
    if not seen:
        return EMPTY
    kinds = {s.removeprefix("text:") for s in seen}
    if len(kinds) == 1:
        return TEXT if STRING in kinds else kinds.pop()
    numbers = kinds - {BOOLEAN}
    # In a CSV, `true` among numbers is a word; a typed boolean true is 1.
    in_text = {s.removeprefix("text:") for s in seen if s.startswith("text:")}
    if numbers <= _NUMBERS and not (BOOLEAN in in_text and in_text & _NUMBERS):
        return FLOAT if FLOAT in numbers else BEYOND if BEYOND in numbers else INTEGER
    return TEXT


def observe(name: str, column: pa.Array, *, is_text: bool, missing: tuple[str, ...] = (), words: bool = True) -> ColumnType:
    """Returns the type of one batch of a column.

    Args:
        name: column name for error messages.
        column: array of any Arrow type.
        is_text: True when strings are CSV text whose type is yet to be inferred.
        missing: texts that mean missing, in addition to the usual ones.
        words: True to infer booleans, dates and times from texts.

    Raises:
        UnusableColumnError: `tf.Example` cannot hold the Arrow type, or a list has a gap.
    """
    kind = column.type
    if pa.types.is_null(kind) or column.null_count == len(column):
        return ColumnType(EMPTY)
    if is_list(kind):
        return _observe_lists(name, column, missing)
    column = plain(column).drop_null()
    kind = column.type
    if holds_text(kind):
        seen, unit = _seen_in_text(name, column, numbers=is_text, missing=missing, words=words)
        return ColumnType.of(seen, unit=unit)
    if is_moment(kind):
        _, unit = spelling.coarsest(*counted(column))
        return ColumnType.of({TIME if pa.types.is_time(kind) else TIMESTAMP}, unit=unit)
    if number := _seen_in_numbers(column):
        if number == FLOAT:
            _check_finite(name, column.cast(pa.float64(), safe=False), missing)
        return ColumnType.of({number})
    hint = " Write it as a number, because its unit differs by format." if pa.types.is_duration(kind) else ""
    raise UnusableColumnError(
        f"column {name!r} holds {kind}, which cannot be a feature; allowed: numbers, booleans, dates, times, text and lists "
        f"of them.{hint} Leave it out with data.exclude: [{name}]."
    )


def _seen_in_numbers(column: pa.Array) -> str:
    """Returns the kind of a numeric or boolean column, or "" for any other type."""
    kind = column.type
    if pa.types.is_boolean(kind):
        return BOOLEAN
    if pa.types.is_integer(kind):
        return BEYOND if pa.types.is_uint64(kind) and pc.max(column).as_py() >= 2**63 else INTEGER
    if pa.types.is_decimal(kind) and kind.scale <= 0:
        return INTEGER if all(-(2**63) <= int(v) < 2**63 for v in column.to_pylist()) else BEYOND
    return FLOAT if pa.types.is_floating(kind) or pa.types.is_decimal(kind) else ""


def _observe_lists(name: str, column: pa.Array, missing: tuple[str, ...]) -> ColumnType:
    if is_list(column.type.value_type):
        raise UnusableColumnError(
            f"column {name!r} holds lists of lists ({column.type}); a row holds one value or one flat list. "
            f"Flatten it, or leave it out with data.exclude: [{name}].",
            _holds_lists,
        )
    # tf.Example stores lists only: a column with at most one value per row is a plain column.
    longest = pc.max(pc.list_value_length(column)).as_py() or 0
    if longest > 1 and pc.any(has_gap(column)).as_py():
        raise UnusableColumnError(
            f"column {name!r} has a gap (null or NaN) inside a list, which a model cannot distinguish from a value. "
            f"Fill it in, make the whole list null, or leave the column out with data.exclude: [{name}].",
            has_gap,
        )
    # `missing` does not apply inside longer lists, which have no missing elements.
    inner = observe(name, column.flatten(), is_text=False, missing=missing if longest <= 1 else ())
    return ColumnType(inner.kind, longest > 1, inner.seen, inner.unit)


def _holds_lists(column: pa.Array) -> pa.Array:
    """Returns a mask of the values that are non-empty lists of lists; all False for other types."""
    if not is_list(column.type) or not is_list(column.type.value_type):
        return pa.array(np.zeros(len(column), dtype=bool))
    return pc.greater(pc.list_value_length(column), 0)


def has_gap(column: pa.Array) -> pa.Array:
    """Returns a mask of the lists of more than one value that hold a null or NaN; all False for single values."""
    if not is_list(column.type):
        return pa.array(np.zeros(len(column), dtype=bool))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    gaps = plain(column.flatten()).is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    found = np.zeros(len(column), dtype=bool)
    found[np.repeat(np.arange(len(column)), lengths)[gaps]] = True
    return pa.array(found & (lengths > 1))


def beyond_integers(name: str) -> UnusableColumnError:
    """Returns the error for integers beyond 64 bits."""

    def is_bad(column: pa.Array) -> pa.Array:
        limit = 2**63
        return pa.array([v is not None and not -limit <= _integer(v) < limit for v in column.to_pylist()])

    return UnusableColumnError(
        (
            f"column {name!r} holds integers outside 64 bits (-2^63 to 2^63 - 1). If they are identifiers or hashes, read them "
            f"as text with data.columns: {{{name}: {{type: text}}}}; or leave them out with data.exclude: [{name}]."
        ),
        is_bad,
    )


def _check_finite(name: str, values: pa.Array, missing: tuple[str, ...]) -> None:
    """Raises UnusableColumnError for numbers beyond float32's range, except those that mean missing."""
    meant = {number_of(m) for m in missing}
    beyond = values.filter(pc.greater(pc.abs(values), FLOAT32_MAX)).drop_null().unique().to_pylist()
    left = [v for v in beyond if v not in meant]
    if not left:
        return

    def is_bad(column: pa.Array) -> pa.Array:
        rows = column.to_pylist()
        return pa.array([any(_number(v) in left for v in (r if isinstance(r, list) else [r])) for r in rows], pa.bool_())

    raise UnusableColumnError(
        (
            f"column {name!r} holds numbers that are infinite, or would be as float32 (beyond 3.4e38), which no model can be "
            f"trained on. Fix the data, or set data.missing_values: [{', '.join(f'{v:g}' for v in left[:_SHOWN])}] where they "
            "mean missing."
        ),
        is_bad,
    )


def _number(value: object) -> float | None:
    return None if value is None else number_of(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))


def mixed_times(name: str) -> UnusableColumnError:
    """Returns the error for a column that mixes dates, times or booleans with other values."""
    return UnusableColumnError(
        f"column {name!r} holds dates, times or booleans in some rows and other values in others. "
        f"Write it in one way, or leave it out with data.exclude: [{name}]."
    )


def _integer(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0


def target(kind: ColumnType, missing: Iterable[str] = ()) -> Target:
    """Returns the target that ingest converts a column to; in a text column the empty text is missing."""
    value, _, unit = kind.meaning.partition("[")
    listed = tuple(missing)
    return Target(
        TEXT if kind.kind == STRING else value,
        unit.removesuffix("]"),
        is_list=kind.is_list,
        spelled=None,
        missing=("", *listed) if kind.kind == STRING else listed,
        unknown=not kind.seen,
        limit=FLOAT32_MAX,
    )


def convert(column: pa.Array, kind: ColumnType) -> pa.Array:
    """Returns the column as a list array, as `tf.Example` stores it: 0..n values per row; a missing row is null.

    Raises:
        UserError: a value does not fit the type.
    """
    if kind.kind == EMPTY:
        return pa.nulls(len(column), pa.list_(pa.null()))
    found = fit_target(column, target(kind))
    if found.misfits:
        raise UserError(f"data: {found.misfits[0].sentence('')} (row {found.misfits[0].row})")
    return stored(found)


def stored(found: Fitted) -> pa.Array:
    """Returns fitted values in the dtypes of `tf.Example`: floats as float32."""
    if pa.types.is_floating(found.values.type.value_type):
        return found.values.cast(pa.list_(pa.float32()), safe=False)
    return found.values


def _seen_in_text(name: str, column: pa.Array, *, numbers: bool, missing: tuple[str, ...], words: bool) -> tuple[set[str], str]:
    """Returns the kinds of a column of texts and the unit of its times; no kinds when all texts mean missing."""
    try:
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    except pa.ArrowInvalid:
        return {STRING}, ""
    kinds = [*((INTEGER, FLOAT) if numbers else ()), *((BOOLEAN, TIMESTAMP, TIME) if words else ())]
    if numbers and (found := _read(name, text, kinds[:1], missing)):
        return found
    listed = pc.is_in(text, spelling.words(missing))
    if pc.any(listed).as_py():
        text = text.filter(pc.invert(listed))
        if not len(text):
            return set(), ""
    return _read(name, text, kinds, missing) or ({STRING}, "")


def _read(name: str, text: pa.Array, kinds: Iterable[str], missing: tuple[str, ...]) -> tuple[set[str], str] | None:
    for kind in kinds:
        try:
            # Parse a few first: Arrow builds an error for each value that does not parse, 0.1 s for 200,000.
            spelling.read_texts(text.slice(0, _FIRST), kind)
            values, unit = spelling.read_texts(text, kind)
        except pa.ArrowInvalid:
            continue
        found = BEYOND if kind == FLOAT and _all_whole(text) else kind
        if found == FLOAT:
            _check_finite(name, values, missing)
        return {f"text:{found}"}, spelling.coarsest(values, unit)[1] if unit else ""
    return None


def _all_whole(text: pa.Array) -> bool:
    return all(pc.all(pc.match_substring_regex(t, _WHOLE)).as_py() for t in (text.slice(0, _FIRST), text))
