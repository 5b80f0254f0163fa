"""How values are spelled as text: what each kind reads, which words mean missing, and how a value is written in a text column."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

# Missing in a column that is no text, in every format and channel; in a text column these are words like any other.
MISSING_WORDS = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "NaT", "None", "n/a", "nan", "none", "null",
)  # fmt: skip
# Missing as a label: none is a class.
MISSING_LABELS = tuple(w for w in MISSING_WORDS if w.lower() != "none")
# A number in digits, as each parser reads it. More digits of an exponent are a code: what they say is infinite or zero.
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
BOOLEAN, INTEGER, FLOAT, TIMESTAMP, TIME, TEXT = "boolean", "integer", "float", "timestamp", "time", "text"
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# As seconds since 1970, the years 1 to 9999. A count of milliseconds taken for one of seconds lies beyond them.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
_MIDNIGHT = "1970-01-01T"
_ZONED = r"\d\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)$"


def unit_of(meaning: str) -> str:
    """Returns the unit in `timestamp[ms]` or `time[ms]`."""
    return meaning.partition("[")[2].removesuffix("]")


def read_texts(text: pa.Array, kind: str) -> tuple[pa.Array, str]:
    """Reads a whole column of trimmed texts (or nulls) as one kind of value.

    Returns:
        The values, int64 or float64, and of times the unit that they are counted in.

    Raises:
        pa.ArrowInvalid: a text is no such value.
    """
    return _READERS[kind](text)


def _integers(text: pa.Array) -> tuple[pa.Array, str]:
    # Arrow reads 0x1F as 31, and 0xffffffffffffffff as -1; in a file these are names.
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
            # Arrow wraps what nanoseconds cannot count to.
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
    """Returns int64 values divided and rounded down; Arrow's own division rounds towards zero."""
    quotient = pc.divide(values, divisor)
    below = pc.less(values, pc.multiply(quotient, divisor))
    return pc.subtract(quotient, below.cast(pa.int64()))


def coarsest(values: pa.Array, unit: str) -> tuple[pa.Array, str]:
    """Returns counts of a unit as those of the coarsest unit in which all of them are whole."""
    units = list(UNITS)
    while unit != "s":
        divided = pc.divide(values, 1000)
        if not pc.all(pc.equal(pc.multiply(divided, 1000), values)).as_py():
            break
        values, unit = divided, units[units.index(unit) - 1]
    return values, unit


_IRREGULAR = "05"
# Style -> what is spelled in it. The first that matches is a text's.
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
    """Returns how numbers, booleans and dates are spelled among texts; by an example each, `05`: in no regular way."""
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
    """Returns the texts that mean missing in a column that is no text."""
    return pa.array(dict.fromkeys([*MISSING_WORDS, *extra]), pa.string())


def missing_test(missing: Collection[str]) -> Callable[[str], bool]:
    """Returns what tells whether a text of a text column means missing there; spaces around a word are no part of it."""
    exact, trimmed = frozenset(missing), frozenset(m.strip() for m in missing) - {""}
    return (lambda text: text in exact or text.strip() in trimmed) if trimmed else exact.__contains__


def one_style(spelled: Collection[str], family: Collection[str]) -> str | None:
    """Returns the one style of a family that was seen; None: none of them, or several."""
    seen = set(spelled) & set(family)
    return seen.pop() if len(seen) == 1 else None


def clash(first: Collection[str], second: Collection[str]) -> tuple[str, str] | None:
    """Returns two styles in which one value could be spelled, one of each side; None: there are none."""
    for family in (NUMBERS, BOOLEANS, MOMENTS):
        for a in sorted(set(first) & set(family)):
            for b in sorted(set(second) & set(family)):
                if a != b and "0.5" not in (a, b):
                    return a, b
    return None
