"""Label values, the task they imply, and label errors."""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.ingest.scalars import longest, one_a_row
from switchyard.components.tasks import TASKS
from switchyard.components.text.visible import in_a_line
from switchyard.components.values.cells import is_text
from switchyard.components.values.spelling import NUMBER

MAX_CLASSES = 1000
# Without a given task, an integer label with more distinct values than this is a quantity.
AUTO_CLASSES = 20
_BOOLEAN = "[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]"
_TRUTH = {"true", "false"}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?")
_TIME = re.compile(r"\d\d:\d\d:\d\d\.\d+")
# As classes, 01 and 1 differ.
_PADDED = r"[+-]?0[0-9]+"
_INT64 = range(-(2**63), 2**63)
# The values of each label of a task that has several which are chosen or not.
ZERO_OR_ONE = (0, 1)


class LabelValues:
    """Counts of a label's distinct values over all batches, up to a limit.

    Args:
        name: name of the label column.
        is_text: True when the config declares the label as text.
        ranged: whether to find the range.

    Attributes:
        overflow: True when there are more distinct values than `MAX_CLASSES`.
        range: smallest and largest value over all rows, as far as they are numbers; None without any, or if not `ranged`.
        spaced: number of rows whose text has surrounding spaces, which are no part of the class.
    """

    def __init__(self, name: str, *, is_text: bool = False, ranged: bool = False) -> None:
        self.name = name
        self.overflow = False
        self.spaced = 0
        self.range: tuple[float, float] | None = None
        self._ranged = ranged
        self._counts: Counter[tuple[bool, type, Any]] = Counter()
        self._has_texts = is_text
        self._has_dates = self._has_padded = False

    def add(self, column: pa.Array, *, untyped: bool) -> None:
        """Adds the label column of one batch; `untyped`: its texts are CSV texts and may be numbers or booleans."""
        plain = plain_label(column)
        if is_text(plain.type):
            self._look_at_texts(plain, untyped=untyped)
            self.spaced += pc.sum(pc.not_equal(one_a_row(column).cast(pa.string()), plain)).as_py() or 0
        elif pa.types.is_temporal(plain.type):
            self._has_dates = True
        if self._ranged:
            self._widen(plain)
        if not self.overflow:
            counted = pc.value_counts(plain.drop_null())
            for value, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
                self._counts[untyped, type(value), value] += count
            self.overflow = len(self._counts) > MAX_CLASSES

    def _widen(self, plain: pa.Array) -> None:
        try:
            numbers = pc.min_max(plain.cast(pa.float64(), safe=False)).as_py()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # texts and dates have no range
            return
        if numbers["min"] is not None:
            low, high = self.range or (numbers["min"], numbers["max"])
            self.range = min(low, numbers["min"]), max(high, numbers["max"])

    @property
    def is_text(self) -> bool:
        """True when the classes are texts."""
        return self._has_texts or self._has_dates or self._has_padded

    @property
    def is_quantity(self) -> bool:
        """True when the values can be regression targets."""
        return not (self._has_texts or self._has_dates)

    @property
    def has_dates(self) -> bool:
        """True when a file holds dates or times in the label."""
        return self._has_dates

    def counts(self) -> dict[Any, int]:
        """Returns value -> row count, in order: exact ints and floats, or texts. A whole float becomes an int."""
        found: Counter[Any] = Counter()
        for (untyped, _, value), count in self._counts.items():
            found[as_text(value) if self.is_text else _as_number(value, untyped=untyped)] += count
        if len(found) > len(_TRUTH) and {str(v).lower() for v in found} == _TRUTH:
            # One file holds booleans, another one their texts.
            return {v: sum(n for t, n in found.items() if t.lower() == v) for v in sorted(_TRUTH)}
        if any(isinstance(v, int) and v not in _INT64 for v in found):
            # Neither tf.Example nor a response of the protocol can hold these as numbers.
            return {str(v): found[v] for v in sorted(found)}
        return {v: found[v] for v in sorted(found)}

    def _look_at_texts(self, texts: pa.Array, *, untyped: bool) -> None:
        texts = texts.drop_null()
        numbers = pc.match_substring_regex(texts, f"^({NUMBER}|{_BOOLEAN})$")
        self._has_texts |= bool(len(texts)) and not (untyped and pc.all(numbers).as_py())
        self._has_padded |= bool(pc.any(pc.match_substring_regex(texts, f"^{_PADDED}$")).as_py())


def labelled(batch: pa.RecordBatch, name: str, words: Sequence[str], file: str, bad: BadRows) -> pa.RecordBatch:
    """Returns the rows with a label; rows without one, or whose label is one of the missing `words`, go to `bad`.

    Raises:
        UserError: the labels are lists, another type that cannot be a label, or no UTF-8.
    """
    kind = batch.column(name).type
    if longest(batch.column(name)) > 1:
        raise UserError(
            f"label: {file}: {name!r} holds lists; a label is one value per row. If it lists the classes of each row, set task: "
            "multilabel; or write each element to a column of its own and give label: [a, b] with task: multioutput."
        )
    if pa.types.is_struct(kind) or pa.types.is_map(kind) or pa.types.is_duration(kind):
        raise UserError(
            f"label: {file}: {name!r} holds {kind}; a label is a number, a boolean, a date or a text. Choose another."
        )
    label = plain_label(batch.column(name))
    valid = label.is_valid()
    if pa.types.is_floating(label.type):
        valid = pc.and_(valid, pc.fill_null(pc.is_finite(label), False))
    elif is_text(label.type):
        valid = pc.and_(valid, pc.invert(pc.is_in(label, pa.array(["", *words], label.type))))
    unlabelled = len(label) - (pc.sum(valid).as_py() or 0)
    if not unlabelled:
        return batch
    words_seen = pc.unique(label.filter(pc.invert(valid)).drop_null()).to_pylist() if is_text(label.type) else []
    words = ", ".join(repr(w) for w in words_seen if w)
    is_float = pa.types.is_floating(label.type)
    hint = f" ({words}; a class of that name needs data.columns: {{{name}: {{type: text}}}})" if words else ""
    bad.add(file, f"the label {name!r} is missing{' or infinite' * is_float}{hint}", number=unlabelled)
    return batch.filter(valid)


def infer_task(values: LabelValues) -> str:
    """Returns binary, multiclass or regression, inferred from the label's values (possibly only the first ones).

    Raises:
        UserError: the label is text with too many values to be classes.
    """
    if values.overflow:
        if values.is_quantity:
            return "regression"
        raise UserError(
            f"label: {values.name!r} is text with more than {MAX_CLASSES} values, too many for classes. Choose another "
            f"label, or set data.columns: {{{values.name}: {{type: number}}}} if these are numbers."
        )
    classes = list(values.counts())
    if values.is_text or (all(isinstance(v, int | str) for v in classes) and len(classes) <= AUTO_CLASSES):
        return "binary" if len(classes) <= 2 else "multiclass"
    return "regression"


def check_label(values: LabelValues, task: str) -> list[Any]:
    """Returns the classes in order (empty for a regression).

    Raises:
        UserError: the label has fewer than two values, or values that do not fit the task.
    """
    name = values.name
    classes = [] if values.overflow else list(values.counts())
    if not values.overflow and len(classes) < 2:
        only = f"only the value {classes[0]!r}" if classes else "no value at all"
        raise UserError(f"label: {name!r} has {only}; there is nothing to learn. Check the column and the data.")
    if not TASKS[task].has_classes:
        if not values.is_quantity:
            kind = "holds dates" if values.has_dates else "is text"
            raise UserError(
                f"label: {name!r} {kind}; a {task} task needs numbers. Set task to binary or multiclass, or, if its texts are "
                f"numbers, data.columns: {{{name}: {{type: number}}}}."
            )
        if not all(math.isfinite(c) for c in classes if isinstance(c, float)):
            raise UserError(f"label: {name!r} holds an infinite number; fix the data.")
        return []
    if values.overflow:
        raise UserError(f"label: {name!r} has more than {MAX_CLASSES} values; set task to regression, or choose another label.")
    if not all(isinstance(c, int | str) for c in classes):
        raise UserError(f"label: {name!r} holds fractions ({classes[:3]} ...); set task to regression.")
    if task == "binary" and len(classes) != 2:
        raise UserError(
            f"label: {name!r} has {len(classes)} values ({in_a_line(classes[:5])} ...), a binary task has 2. "
            "Set task to multiclass."
        )
    return classes


def zero_or_one(task: str) -> bool:
    """Returns whether each of a task's labels is 0 or 1."""
    return TASKS[task].has_labels and TASKS[task].has_probabilities


def class_column(column: pa.Array, classes: Sequence[Any], *, untyped: bool) -> pa.Array:
    """Returns a label column as its exact classes, int64 or string; any other value becomes null."""
    encoded = plain_label(column).dictionary_encode()
    found = [class_of(v, classes, untyped=untyped) for v in encoded.dictionary.to_pylist()]
    return pa.array(found, pa.string() if isinstance(classes[0], str) else pa.int64()).take(encoded.indices)


def class_of(value: Any, classes: Sequence[Any], *, untyped: bool) -> int | str | None:
    """Returns the class of a raw value; None when it is no class."""
    if isinstance(classes[0], int):
        found: Any = _as_number(value.strip() if isinstance(value, str) else value, untyped=untyped)
    else:
        found = as_text(value)
        found = found.lower() if set(classes) == _TRUTH else found
        if found not in classes:  # if any integer exceeds 64 bits, numeric classes are texts
            number = _as_number(value.strip() if isinstance(value, str) else value, untyped=untyped)
            found = None if number is None else str(number)
    return found if found in classes else None


def plain_label(column: pa.Array) -> pa.Array:
    """Returns one scalar per row: texts without surrounding spaces, floats as float64, timestamps in microseconds."""
    column = one_a_row(column)
    kind = column.type
    if is_text(kind):
        try:
            return pc.utf8_trim_whitespace(column.cast(pa.string()))
        except pa.ArrowInvalid:
            raise UserError("label: holds bytes that are not UTF-8 text; write the classes as text or numbers.") from None
    if pa.types.is_floating(kind):
        return column.cast(pa.float64())
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    return column


def as_text(value: Any) -> str:
    """Returns a value as the text of a class: 1.0 as 1, a date in ISO format, whether given as a date or as text."""
    value = _as_moment(value) if isinstance(value, str) else value
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ").removesuffix(" 00:00:00")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    number = None if isinstance(value, bool) else _as_number(value, untyped=False)
    return str(value).strip() if number is None else str(number)


def _as_moment(text: str) -> datetime.datetime | datetime.time | str:
    try:
        if _MOMENT.fullmatch(text.strip()):
            return datetime.datetime.fromisoformat(text.strip())
        return datetime.time.fromisoformat(text.strip()) if _TIME.fullmatch(text.strip()) else text
    except ValueError:
        return text


def _as_number(value: Any, *, untyped: bool) -> int | float | None:
    """Returns an exact number, a whole one as an int; None for other values."""
    if isinstance(value, str) and untyped:
        if re.fullmatch(_BOOLEAN, value):
            return int(value.lower() == "true")
        if not re.fullmatch(NUMBER, value):
            return None
        value = decimal.Decimal(value)
    if not isinstance(value, bool | int | float | decimal.Decimal):
        return None
    # Converting floats beyond 1e30 to integers is meaningless, and a decimal there can have a thousand digits.
    whole = int(value) if -(10**30) < value < 10**30 else None
    return whole if whole is not None and whole == value else float(value)
