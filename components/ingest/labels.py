"""The label: its values, the task they mean, and the errors a label can have."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.errors import UserError
from components.ingest.column_types import FLOAT, INTEGER, STRING, ColumnType

MAX_CLASSES = 1000
# An integer label with more values than this is taken as a quantity when the task is not given.
AUTO_CLASSES = 20


class LabelValues:
    """Counts the distinct values of a label over all batches, up to a limit."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: Counter[Any] = Counter()
        self.overflow = False

    def add(self, column: pa.Array) -> None:
        """Takes the label's column of one batch (any type but a list)."""
        if not self.overflow:
            counted = pc.value_counts(column.drop_null())
            self.values.update(dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)))
            self.overflow = len(self.values) > MAX_CLASSES

    def typed(self, kind: str) -> list[Any]:
        """The values as ints, floats or texts, in order."""
        if kind == STRING:
            return sorted(v.decode() if isinstance(v, bytes) else str(v) for v in self.values)
        numbers = sorted({float(v) for v in self.values})
        return [int(n) for n in numbers] if all(n.is_integer() for n in numbers) else numbers


def infer_task(values: LabelValues, kind: str) -> str:
    """Returns binary, multiclass or regression for a label whose values (perhaps only the first ones) are known.

    Raises:
        UserError: text with too many values to be classes.
    """
    typed = [] if values.overflow else values.typed(kind)
    if kind == STRING:
        if values.overflow:
            raise UserError(
                f"label: {values.name!r} is text with more than {MAX_CLASSES} values; these cannot be classes. "
                "Choose another label."
            )
        return "binary" if len(typed) <= 2 else "multiclass"
    whole = bool(typed) and all(isinstance(v, int) for v in typed)
    if whole and len(typed) <= AUTO_CLASSES:
        return "binary" if len(typed) <= 2 else "multiclass"
    return "regression"


def check_label(values: LabelValues, column: ColumnType, task: str) -> list[Any]:
    """Returns the classes in order (empty for a regression).

    Raises:
        UserError: one value only, or values that do not fit the task.
    """
    name = values.name
    if column.is_list:
        raise UserError(f"label: {name!r} holds lists; a label is one value a row.")
    if len(values.values) < 2:
        only = f"only the value {next(iter(values.values))!r}" if values.values else "no value at all"
        raise UserError(f"label: {name!r} has {only}; there is nothing to learn. Check the column and the data.")
    if task == "regression":
        if column.kind not in (INTEGER, FLOAT):
            raise UserError(f"label: {name!r} is text; a regression needs numbers. Set task to binary or multiclass.")
        return []
    if values.overflow:
        raise UserError(f"label: {name!r} has more than {MAX_CLASSES} values; set task to regression, or choose another label.")
    classes = values.typed(column.kind)
    if not all(isinstance(c, int | str) for c in classes):
        raise UserError(f"label: {name!r} holds fractions ({classes[:3]} ...); set task to regression.")
    if task == "binary" and len(classes) != 2:
        raise UserError(
            f"label: {name!r} has {len(classes)} values ({', '.join(map(str, classes[:5]))} ...), a binary task has 2. "
            "Set task to multiclass."
        )
    return classes
