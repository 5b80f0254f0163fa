"""Detects numeric columns that a few texts turn into text columns."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.values import spelling
from switchyard.components.values.cells import as_text

# Above this share of the present values, a column is meant as numbers.
_SHARE = 0.9
# With at least this share of numbers, texts that can only be missing markers are not counted as present.
_FEWEST = 0.1
_MARKER = (
    r"(?i)^([^\pL\pN]+|n[.]?[ad][.]?|k[.]?a[.]?|nil|none|null|missing|unknown|undefined|blank|empty|tbd|"
    r"not (available|applicable|known)|no (data|value))$"
)
# Up to this many distinct values with a unit count as categories.
_FEW = 20
_UNIT = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?\s*([^\W\d_]{1,6})")
# From this share on, a column that stays text gets a warning about its numbers.
_WORTH_SAYING = 0.5
_REMEMBERED = 1000
_SHOWN = 3
_LONGEST = 60
_PLAIN = f"^{spelling.NUMBER}$"
_DATE = r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d.*)?$"
_FRACTION = r"[.eE]"
_PADDED = r"^\s*0[0-9]+\s*$"
_SPACE = "[ \u00a0\u202f]"
_NUMBER = r"([0-9]+|[0-9]{1,3}([,.' ][0-9]{3})+)([.,][0-9]+)?"
_CURRENCY = "([$€£¥₹]|USD|EUR|GBP|CHF|JPY)"
_MINUS = "[\u2212\u2013]"


def _grouped(thousands: str, decimal: str, *, always: bool) -> str:
    """Returns a pattern for numbers with thousands separators; `always`: at least one separator is required."""
    plain = "" if always else "|[0-9]+"
    return f"^[+-]?([0-9]{{1,3}}({thousands}[0-9]{{3}})+{plain})({decimal}[0-9]*)?$"


# Patterns of texts that can be read as numbers. The one that matches most rows of a column is proposed, the first on a tie.
_READINGS = {
    "thousands ,": _grouped(",", "[.]", always=True),
    "decimal ,": r"^[+-]?[0-9]+,[0-9]+([eE][+-]?[0-9]+)?$",
    "decimal , thousands .": _grouped("[.]", ",", always=False),
    "thousands space": _grouped(_SPACE, "[.]", always=True),
    "decimal , thousands space": _grouped(_SPACE, ",", always=False),
    "thousands '": _grouped("'", "[.]", always=True),
    "percent": rf"^[+-]?{_NUMBER}\s*%$",
    "currency": rf"^[+-]?{_CURRENCY}\s*[+-]?{_NUMBER}$|^[+-]?{_NUMBER}\s*{_CURRENCY}$",
    "sign": rf"^\({_NUMBER}\)$|^{_MINUS}{_NUMBER}$|^{_NUMBER}-$",
}
_KEYS = {
    "thousands ,": "data.csv: {thousands: ','}",
    "decimal ,": "data.csv: {decimal: ','}",
    "decimal , thousands .": "data.csv: {decimal: ',', thousands: '.'}",
    "thousands space": "data.csv: {thousands: ' '}",
    "decimal , thousands space": "data.csv: {decimal: ',', thousands: ' '}",
    "thousands '": 'data.csv: {thousands: "\'"}',
}
_CLEAN = {
    "percent": "remove the % from the data",
    "currency": "remove the currency from the data",
    "sign": "write the minus as - in front of the number",
}


@dataclass
class _Column:
    """Row counts of a column: plain numbers, of these fractions and zero-padded ones such as 007; other texts.

    `dates` counts the texts that are dates; `undated` holds the texts that are neither numbers nor dates.
    """

    present: int = 0
    numbers: int = 0
    fractions: int = 0
    zeros: int = 0
    untyped: bool = False
    others: Counter[str] = field(default_factory=Counter)
    dates: int = 0
    undated: Counter[str] = field(default_factory=Counter)


class NearlyNumbers:
    """Counts of the numbers in text columns, over all batches.

    Args:
        missing_values: texts that mean missing, in addition to the usual ones.
    """

    def __init__(self, missing_values: Sequence[str]) -> None:
        self._missing = tuple(missing_values)
        self._columns: dict[str, _Column] = {}

    def add(self, name: str, column: pa.Array, *, untyped: bool, all_numbers: bool) -> None:
        """Adds one batch of a text column.

        Args:
            name: column name.
            column: strings or bytes.
            untyped: True for CSV columns, which have no type of their own.
            all_numbers: True when all texts are known to be numbers.
        """
        seen = self._columns.setdefault(name, _Column())
        seen.untyped |= untyped
        if all_numbers:
            seen.present += len(column) - column.null_count
            seen.numbers += len(column) - column.null_count
            seen.zeros += pc.sum(pc.match_substring_regex(as_text(column), _PADDED)).as_py() or 0
            return
        counted = pc.value_counts(pc.utf8_trim_whitespace(as_text(column)).drop_null())
        texts, counts = counted.field(0), counted.field(1)
        there = pc.invert(pc.is_in(texts, spelling.words(self._missing)))
        texts, counts = texts.filter(there), counts.filter(there)
        plain = pc.match_substring_regex(texts, _PLAIN)
        seen.present += pc.sum(counts).as_py() or 0
        seen.numbers += pc.sum(counts.filter(plain)).as_py() or 0
        seen.fractions += pc.sum(counts.filter(pc.and_(plain, pc.match_substring_regex(texts, _FRACTION)))).as_py() or 0
        dates = _are_dates(texts)
        seen.dates += pc.sum(counts.filter(dates)).as_py() or 0
        _remember(seen.others, texts, counts, pc.invert(plain))
        _remember(seen.undated, texts, counts, pc.invert(pc.or_(plain, dates)))

    def problems(self, names: Sequence[str]) -> list[str]:
        """Returns a sentence for each of the text columns that is meant as numbers, with the key that decides."""
        return [found for n in names if n in self._columns and (found := _problem(n, self._columns[n], self._missing))]

    def notes(self, texts: Sequence[str], numbers: Sequence[str]) -> list[str]:
        """Returns a note for each text column with many numbers or dates, and for numeric columns that look like codes."""
        found = [_note(n, self._columns[n]) for n in texts if n in self._columns]
        found += [_codes(n, self._columns[n]) for n in numbers if n in self._columns]
        return [note for note in found if note]


def _are_dates(texts: pa.Array) -> pa.Array:
    alike = pc.match_substring_regex(texts, _DATE)
    try:
        spelling.read_texts(texts.filter(alike), spelling.TIMESTAMP)
        return alike
    except pa.ArrowInvalid:  # 0000-00-00, 2023-02-29
        return pa.array([a and _is_date(t) for a, t in zip(alike.to_pylist(), texts.to_pylist(), strict=True)], pa.bool_())


def _is_date(text: str) -> bool:
    try:
        return bool(datetime.datetime.fromisoformat(text))
    except ValueError:
        return False


def _remember(counted: Counter[str], texts: pa.Array, counts: pa.Array, chosen: pa.Array) -> None:
    for text, count in zip(texts.filter(chosen).to_pylist(), counts.filter(chosen).to_pylist(), strict=True):
        if text in counted or len(counted) < _REMEMBERED:
            counted[text] += count


def _note(name: str, column: _Column) -> str | None:
    if column.undated and column.dates >= _WORTH_SAYING * column.present:
        seen = f"{name}: {column.dates:,} of {column.present:,} values are dates; {_shown(column.undated)} not"
        listed = ", ".join(_quoted(t) for t, _ in column.undated.most_common(_SHOWN) if len(t) <= _LONGEST)
        advice = f"; data.missing_values: [{listed}] makes it dates where these mean missing" if listed else ""
        return f"{seen}, so the column is text{advice}"
    if column.others and column.numbers >= _WORTH_SAYING * column.present:
        return f"{_sentence(name, column)}, so the column is text; data.columns or data.missing_values can make it numbers"
    if unit := _unit(column):
        return f"{name}: the values are numbers followed by {unit!r}, so the column is text; remove the unit from the data"
    if column.others or column.fractions or column.untyped or not column.numbers:
        return None
    return (
        f"{name}: all {column.present:,} values are integers stored as text, and stay text; "
        f"data.columns: {{{_quoted(name)}: {{type: number}}}} reads them as numbers"
    )


def _unit(column: _Column) -> str | None:
    """Returns the unit that follows nearly all of many distinct numbers; None when there is none."""
    if len(column.others) <= _FEW:
        return None
    counted: Counter[str | None] = Counter()
    for text, rows in column.others.items():
        match = _UNIT.fullmatch(text)
        counted[match[2] if match else None] += rows
    [(unit, rows)] = counted.most_common(1)
    return unit if unit and rows > _SHARE * counted.total() else None


def _codes(name: str, column: _Column) -> str | None:
    if not column.zeros:
        return None
    return (
        f"{name}: {column.zeros:,} of {column.present:,} values start with 0, and all are read as numbers; "
        f"data.columns: {{{_quoted(name)}: {{type: text}}}} keeps them as they are"
    )


def _problem(name: str, column: _Column, missing: Sequence[str]) -> str | None:
    if not column.others and not column.fractions:
        return None  # whole numbers as text may be ids: see `_note`
    texts = pa.array(list(column.others), pa.string())
    matched = {r: pc.match_substring_regex(texts, pattern) for r, pattern in _READINGS.items()}
    alike = sum(n for i, n in enumerate(column.others.values()) if any(m[i].as_py() for m in matched.values()))
    markers = pc.match_substring_regex(texts, _MARKER)
    marked = sum(n for i, n in enumerate(column.others.values()) if markers[i].as_py())
    numbers = column.numbers + alike
    rest = column.present - marked if numbers >= _FEWEST * column.present else column.present
    if not numbers > _SHARE * rest:
        return None
    advice = _advice(name, column, matched, missing)
    return f"{_sentence(name, column)}: {advice}; data.columns: {{{_quoted(name)}: {{type: text}}}} keeps the column as text."


def _sentence(name: str, column: _Column) -> str:
    counted = f"{column.numbers:,} of {column.present:,} values are numbers"
    if not column.others:
        return f"{name}: {counted}, stored as text"
    return f"{name}: {counted}; {_shown(column.others)} not"


def _shown(texts: Counter[str]) -> str:
    """Returns the most frequent texts with their row counts, followed by `is` or `are`."""
    shown = [f"{_shortened(t)!r} ({n:,} row{'s' if n > 1 else ''})" for t, n in texts.most_common(_SHOWN)]
    more = len(texts) - len(shown)
    return f"{', '.join(shown)}{f' and {more:,} other texts' if more else ''} {'is' if len(texts) == 1 else 'are'}"


def _advice(name: str, column: _Column, matched: Mapping[str, pa.Array], missing: Sequence[str]) -> str:
    advice = []
    words = [t for t in column.others if not any(c.isdigit() for c in t)]
    short = [t for t in words if len(t) <= _LONGEST]
    if short:
        listed = [*missing, *sorted(short, key=lambda w: -column.others[w])][: len(missing) + _SHOWN]
        advice.append(f"data.missing_values: [{', '.join(map(_quoted, listed))}]")
    with_digits = [(i, t) for i, t in enumerate(column.others) if t not in words]
    covered = {r: sum(column.others[t] for i, t in with_digits if m[i].as_py()) for r, m in matched.items()}
    best = max(covered, key=lambda r: covered[r])
    if covered[best]:
        advice.append(_KEYS[best] if best in _KEYS and column.untyped else _CLEAN.get(best, "write plain numbers"))
    if len(short) < len(words) or any(not matched[best][i].as_py() for i, _ in with_digits):
        advice.append("fix the values that are not numbers")
    if not column.untyped:
        advice.append(f"data.columns: {{{_quoted(name)}: {{type: number}}}}")
    return " and ".join(advice)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _quoted(text: str) -> str:
    """Returns the text as a YAML scalar."""
    return "'" + text.replace("'", "''") + "'" if not text.isidentifier() else text
