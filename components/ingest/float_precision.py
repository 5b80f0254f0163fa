"""Reports, before training, which numeric columns lose distinct values in the floats they are stored as.

A `tf.Example` stores 32-bit floats: 1,700,000,000.0 and the next 63 seconds collapse into one value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError
from switchyard.components.ingest.column_types import FLOAT, INTEGER, ColumnType
from switchyard.components.values import spelling
from switchyard.components.values.cells import is_text, plain
from switchyard.components.values.targets import EXACT

KEY = "data.max_float32_loss"
_SAMPLE = 2_000
_MOST_DISTINCT = 1_000_000
_NEGLIGIBLE = 0.01


@dataclass
class _Column:
    """Distinct values of the batches that lost some; `is_whole`: all values so far are whole numbers."""

    is_whole: bool = True
    loses: bool = False
    distinct: list[np.ndarray] = field(default_factory=list)
    kept: int = 0

    def keep(self, values: np.ndarray) -> None:
        if self.kept < _MOST_DISTINCT:
            self.distinct.append(np.unique(values))
            self.kept += len(self.distinct[-1])


@dataclass(frozen=True)
class Loss:
    """Loss of a column: `left` of `distinct` values stay distinct as float32; `is_whole`: all values are whole numbers."""

    distinct: int
    left: int
    is_whole: bool

    @property
    def share(self) -> float:
        """Share of the distinct values that are lost, in [0, 1]."""
        return 1 - self.left / self.distinct


class FloatPrecision:
    """Loss of distinct values per column over the first pass. A batch is read in full only when its sample requires it."""

    def __init__(self, missing: Sequence[str] = ()) -> None:
        self._missing = spelling.words(tuple(missing))
        self._columns: dict[str, _Column] = {}

    def add(self, name: str, column: pa.Array, kind: str) -> None:
        """Adds one batch of a column with numbers of `kind`; ignores other columns."""
        column = plain(column)
        if kind not in (INTEGER, FLOAT) or pa.types.is_temporal(column.type) or pa.types.is_boolean(column.type):
            return
        known = self._columns.setdefault(name, _Column())
        present = self._present(column)
        if not len(present):
            return
        sample = _numbers(present.take(_sample(len(present))), kind)
        if sample is None:
            known.is_whole = False
            return
        known.loses |= len(np.unique(sample)) > len(np.unique(_as(np.float32, sample)))
        known.is_whole &= kind == INTEGER or _is_whole(sample)
        if not known.loses and (not known.is_whole or kind == INTEGER):
            return
        values = _numbers(present, kind)
        assert values is not None  # the type was inferred over the whole batch
        known.is_whole &= kind == INTEGER or _is_whole(values)
        if known.loses:
            known.keep(values)

    def _present(self, column: pa.Array) -> pa.Array:
        column = column.drop_null()
        if not is_text(column.type):
            return column
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        return text.filter(pc.invert(pc.is_in(text, self._missing)))

    def losses(self, types: Mapping[str, ColumnType]) -> dict[str, Loss]:
        """Returns the loss per column: for floats as float32, for integers as float64, the dtype of their normalization."""
        found = {}
        for name, column in self._columns.items():
            kind = types[name].kind
            if types[name].is_list or kind not in (INTEGER, FLOAT) or not column.distinct:
                continue
            distinct = np.unique(np.concatenate(column.distinct))
            left = len(np.unique(_as(np.float32 if kind == FLOAT else np.float64, distinct)))
            loss = Loss(len(distinct), left, column.is_whole)
            if loss.share > _NEGLIGIBLE:
                found[name] = loss
        return found


def settled(
    types: Mapping[str, ColumnType], losses: Mapping[str, Loss], labels: Collection[str], limit: float
) -> tuple[dict[str, ColumnType], list[str]]:
    """Returns the types, with whole numbers kept as integers where floats would lose some, and warnings for the user.

    Raises:
        UserError: a column of fractions loses more than `limit`, a share of its distinct values.
    """
    decided, notes = dict(types), []
    for name, loss in losses.items():
        numbers = f"column {name!r}: {loss.distinct:,} distinct values become {loss.left:,}"
        if types[name].kind == INTEGER and name in labels:
            continue  # classes are exact values
        if types[name].kind == INTEGER:
            notes.append(f"{numbers} as float64, which the default preprocessing works with")
        elif loss.is_whole and name not in labels:
            decided[name] = ColumnType.of({INTEGER})
            notes.append(f"{numbers} as float32; all are whole numbers and are kept as integers")
        elif loss.share > limit:
            raise UserError(
                f"data: {numbers} as float32, which examples hold: {loss.share:.0%} are lost, {KEY} allows {limit:.0%}. "
                f"Subtract a constant from it or write it as whole numbers of a smaller unit, leave it out "
                f"(--set 'data.exclude=[{name}]'), or accept it (--set {KEY}=1)."
            )
        else:
            notes.append(f"{numbers} as float32, which examples hold ({KEY}: {limit:g})")
    return decided, notes


def _sample(rows: int) -> pa.Array:
    """Returns row indices spread over a batch plus adjacent rows: in sorted data only adjacent values are close."""
    every = np.arange(0, rows, -(-rows // _SAMPLE))
    start = max(0, rows // 2 - _SAMPLE // 2)
    return pa.array(np.union1d(every, np.arange(start, min(rows, start + _SAMPLE))))


def _numbers(column: pa.Array, kind: str) -> np.ndarray | None:
    """Returns the numbers of a batch; None for other types such as times."""
    try:
        if is_text(column.type):
            column = spelling.read_texts(column, kind)[0]
        target: Any = pa.int64() if kind == INTEGER else pa.float64()
        values: np.ndarray = column.cast(target, safe=kind == INTEGER).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return values if kind == INTEGER else values[~np.isnan(values)]


def _as(kind: Any, values: np.ndarray) -> np.ndarray:
    """Returns values as a float dtype; values out of range become infinite."""
    with np.errstate(over="ignore"):
        found: np.ndarray = values.astype(kind)
    return found


def _is_whole(values: np.ndarray) -> bool:
    return bool(((values == np.trunc(values)) & (np.abs(values) < EXACT)).all())
