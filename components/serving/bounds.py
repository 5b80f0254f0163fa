"""How much a request may hold, and what one that holds something else is answered."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from switchyard.components.errors import UserError

_SPARSE_CELLS = 8 << 20
_CELLS_A_BYTE = 2
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


class InputError(UserError):
    """A request does not fit the model.

    Attributes:
        status: HTTP status code.
        rows: the rows to blame, int64; empty: it is not for single rows.
    """

    def __init__(self, message: str, status: int = 400, rows: Sequence[int] | np.ndarray = ()) -> None:
        super().__init__(message)
        self.status = status
        self.rows = np.asarray(rows, dtype=np.int64)


@dataclass(frozen=True)
class Bounds:
    """What a request may hold. Asked before anything is allocated, so that memory follows the body and not what it says.

    Attributes:
        rows: at most.
        cells: rows times columns, and of a feature of lists rows times the longest list, at most.
    """

    rows: int = 10_000
    cells: int = _SPARSE_CELLS

    @classmethod
    def of_body(cls, rows: int, size: int) -> Bounds:
        """Returns those of a body of `size` bytes: whatever names its values one by one fits, however wide the model is."""
        return cls(rows, _SPARSE_CELLS + _CELLS_A_BYTE * size)

    def check_rows(self, rows: int) -> None:
        """Refuses too many rows.

        Raises:
            InputError: with status 413.
        """
        if rows > self.rows:
            raise InputError(f"{rows} rows in a request; at most {self.rows} are taken. Send several requests.", 413)

    def check_cells(self, rows: int, width: int, column: str | None = None) -> None:
        """Refuses too many values, those that are left out included.

        Raises:
            InputError: with status 413.
        """
        if max(rows, 1) * width > self.cells:
            what = f"column {column!r}: {rows} rows with up to" if column else f"{rows} rows of"
            raise InputError(
                f"{what} {width} values are more than the {self.cells} that this request may hold. Send fewer rows at once.", 413
            )


def shown(value: Any) -> str:
    """Returns a value's kind and its beginning, whatever its size."""
    kinds = {dict: "an object", list: "a list", tuple: "a list", type(None): "null"}
    text = brief(value)
    return f"{kinds.get(type(value), type(value).__name__)} {text[:40]}{'...' if len(text) > 40 else ''}"


def brief(value: Any) -> str:
    """Returns the beginning of a value of any size as Python writes it."""
    return _REPR.repr(value)[:100]


def shortened(text: str) -> str:
    """Returns a client's text quoted, its first 100 characters."""
    return repr(text) if len(text) <= 100 else f"{text[:100]!r}..."
