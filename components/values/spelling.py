"""Text forms of values: parsers per kind, words that mean missing, and spelling styles in text columns."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

# Missing in a column that is not text, in every format and channel. In a text column they are ordinary words.
MISSING_WORDS = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "NaT", "None", "n/a", "nan", "none", "null",
)  # fmt: skip
# Words that mean missing as a label and are therefore no classes.
MISSING_LABELS = tuple(w for w in MISSING_WORDS if w.lower() != "none")
# A decimal number as all parsers accept it. With a longer exponent it is a code: as a number it would be infinite or zero.
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
BOOLEAN, INTEGER, FLOAT, TIMESTAMP, TIME, TEXT = "boolean", "integer", "float", "timestamp", "time", "text"
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Range of seconds since 1970 for the years 1 to 9999. Milliseconds mistaken for seconds exceed it.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
_MIDNIGHT = "1970-01-01T"
_ZONED = r"\d\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)$"


def unit_of(meaning: str) -> str:
    """Returns the unit of a meaning such as `timestamp[ms]` or `time[ms]`."""
    return meaning.partition("[")[2].removesuffix("]")


def read_texts(text: pa.Array, kind: str) -> tuple[pa.Array, str]:
    """Returns a column of trimmed texts (or nulls) parsed as one kind of value.

    Returns:
        The values, int64 or float64, and for times their unit.

    Raises:
        pa.ArrowInvalid: a text is no such value.
    """
    return _READERS[kind](text)


def _integers(text: pa.Array) -> tuple[pa.Array, str]:
    # Arrow parses 0x1F as 31 and 0xffffffffffffffff as -1. In data files such texts are names.
    if pc.any(pc.match_substring(text, "0x", ignore_case=True)).as_py():
        raise pa.ArrowInvalid("hexadecimal")
    return text.cast(pa.int64()), ""


def _floats(text: pa.Array) -> tuple[pa.Array, str]:
    return text.cast(pa.float64()), ""


def _booleans(text: pa.Array) -> tuple[pa.Array, str]:
    lower = pc.ascii_lower(text)
    true = pc.equal(lower, "true")
    if not pc.all(pc.or_(true, pc.equal(lower, "false"))).as_py():
        raise pa.ArrowInvalid("neither true nor false")
    return true.cast(pa.int64()), ""


def _timestamps(text: pa.Array) -> tuple[pa.Array, str]:
    zoned = pc.match_substring_regex(text, _ZONED)
    some = pc.any(zoned).as_py()
    for unit in UNITS:
        try:
            values = pc.if_else(zoned, None, text).cast(pa.timestamp(unit)).cast(pa.int64()) if some else None
            if some:
                there = pc.if_else(zoned, text, None).cast(pa.timestamp(unit, "UTC")).cast(pa.int64())
                values = pc.coalesce(values, there)
            else:
                values = text.cast(pa.timestamp(unit)).cast(pa.int64())
        except pa.ArrowInvalid:
            if unit == "ns":
                raise
            continue
        if unit == "ns":
            # Arrow overflows silently outside the range of nanoseconds.
            whole, _ = _timestamps(pc.replace_substring_regex(text, r"\.\d+", ""))
            if not pc.all(pc.equal(floor_divided(values, UNITS["ns"]), whole)).as_py():
                raise pa.ArrowInvalid("outside of the years that nanoseconds can count")
        return values, unit
    raise AssertionError("not reached: the last unit raises")


def _times(text: pa.Array) -> tuple[pa.Array, str]:
    if not pc.all(pc.match_substring_regex(text, r"^\d\d:\d\d(:\d\d(\.\d+)?)?$")).as_py():
        raise pa.ArrowInvalid("no time of day")
    return _timestamps(pc.binary_join_element_wise(_MIDNIGHT, text, ""))


_READERS: dict[str, Callable[[pa.Array], tuple[pa.Array, str]]] = {
    INTEGER: _integers,
    FLOAT: _floats,
    BOOLEAN: _booleans,
    TIMESTAMP: _timestamps,
    TIME: _times,
}


def floor_divided(values: pa.Array, divisor: int) -> pa.Array:
    """Returns int64 values divided and rounded down; Arrow's division rounds towards zero."""
    quotient = pc.divide(values, divisor)
    below = pc.less(values, pc.multiply(quotient, divisor))
    return pc.subtract(quotient, below.cast(pa.int64()))


def coarsest(values: pa.Array, unit: str) -> tuple[pa.Array, str]:
    """Returns counts converted to the coarsest unit in which all of them are whole."""
    units = list(UNITS)
    while unit != "s":
        divided = pc.divide(values, 1000)
        if not pc.all(pc.equal(pc.multiply(divided, 1000), values)).as_py():
            break
        values, unit = divided, units[units.index(unit) - 1]
    return values, unit


_IRREGULAR = "05"
# Style -> pattern. A text has the first style that matches.
_STYLES = {
    "5": r"^(0|-?[1-9]\d*)$",
    "5.0": r"^-?(0|[1-9]\d*)\.0$",
    "0.5": r"^-?(0|[1-9]\d*)\.\d*[1-9]$",
    _IRREGULAR: f"^{NUMBER}$",
    "true": "^(true|false)$",
    "True": "^(True|False)$",
    "TRUE": "^(TRUE|FALSE)$",
    "2024-01-31": r"^\d{4}-\d\d-\d\d$",
    "2024-01-31 09:00:00": r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?$",
    "2024-01-31T09:00:00": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?$",
    "09:00:00": r"^\d\d:\d\d:\d\d(\.\d+)?$",
}
NUMBERS = ("5", "5.0", "0.5", _IRREGULAR)
BOOLEANS = ("true", "True", "TRUE")
DATES = ("2024-01-31",)
MOMENTS = ("2024-01-31 09:00:00", "2024-01-31T09:00:00")
TIMES = ("09:00:00",)


def styles(texts: pa.Array) -> set[str]:
    """Returns the styles of numbers, booleans and dates among texts, each named by an example; `05` is irregular."""
    left = texts.drop_null()
    found = set()
    for style, pattern in _STYLES.items():
        matched = pc.match_substring_regex(left, pattern)
        if pc.any(matched).as_py():
            found.add(style)
            left = left.filter(pc.invert(matched))
        if not len(left):
            break
    return found


@lru_cache(maxsize=64)
def words(extra: tuple[str, ...]) -> pa.Array:
    """Returns the texts that mean missing in a column that is not text."""
    return pa.array(dict.fromkeys([*MISSING_WORDS, *extra]), pa.string())


def missing_test(missing: Collection[str]) -> Callable[[str], bool]:
    """Returns a predicate for texts that mean missing in a text column; spaces around a word are ignored."""
    exact, trimmed = frozenset(missing), frozenset(m.strip() for m in missing) - {""}
    return (lambda text: text in exact or text.strip() in trimmed) if trimmed else exact.__contains__


def one_style(spelled: Collection[str], family: Collection[str]) -> str | None:
    """Returns the only observed style of a family; None when none or several were observed."""
    seen = set(spelled) & set(family)
    return seen.pop() if len(seen) == 1 else None


def clash(first: Collection[str], second: Collection[str]) -> tuple[str, str] | None:
    """Returns a pair of styles, one from each side, in which one value could be spelled in two ways; None without such a pair."""
    for family in (NUMBERS, BOOLEANS, MOMENTS):
        for a in sorted(set(first) & set(family)):
            for b in sorted(set(second) & set(family)):
                if a != b and "0.5" not in (a, b):
                    return a, b
    return None
