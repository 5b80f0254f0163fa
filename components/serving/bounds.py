"""Limits the size of a request and defines the error for requests that do not fit the model."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from switchyard.components.errors import UserError

_SPARSE_CELLS = 8 << 20
# Pixel values of all images of a request, 4 bytes each.
_PIXELS = 64 << 20
# Pixels of a column of images as they are sent: to decode these takes some seconds.
_SOURCE_PIXELS = 100_000_000
_CELLS_A_BYTE = 2
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


class InputError(UserError):
    """A request does not fit the model.

    Attributes:
        status: HTTP status code.
        rows: indices of the rows that do not fit, int64; empty if the error is not about single rows.
    """

    def __init__(self, message: str, status: int = 400, rows: Sequence[int] | np.ndarray = ()) -> None:
        super().__init__(message)
        self.status = status
        self.rows = np.asarray(rows, dtype=np.int64)


@dataclass(frozen=True)
class Bounds:
    """Limits of a request, checked before allocation: memory depends on the body's size, not on the shapes it declares.

    Attributes:
        rows: maximum number of rows.
        cells: maximum of rows times columns, and for a list feature of rows times the longest list.
    """

    rows: int = 10_000
    cells: int = _SPARSE_CELLS

    @classmethod
    def of_body(cls, rows: int, size: int) -> Bounds:
        """Returns the bounds of a body of `size` bytes; a body that spells out every value always fits."""
        return cls(rows, _SPARSE_CELLS + _CELLS_A_BYTE * size)

    def check_rows(self, rows: int) -> None:
        """Validates the number of rows.

        Raises:
            InputError: there are too many rows (status 413).
        """
        if rows > self.rows:
            raise InputError(f"{rows} rows in a request; at most {self.rows} are allowed. Send several requests.", 413)

    def check_pixels(self, rows: int, width: int) -> None:
        """Validates the number of pixel values that images are decoded to.

        Raises:
            InputError: there are too many (status 413).
        """
        if rows * width > _PIXELS:
            most = _PIXELS // width
            raise InputError(f"{rows} rows of {width} pixel values; at most {most} rows are allowed. Send several requests.", 413)

    def check_source_pixels(self, pixels: int, column: str) -> None:
        """Validates the number of pixels of encoded images.

        Raises:
            InputError: there are too many (status 413).
        """
        if pixels > _SOURCE_PIXELS:
            raise InputError(
                f"column {column!r} has images of {pixels:,} pixels; at most {_SOURCE_PIXELS:,} are allowed. Send several "
                "requests, or smaller images.",
                413,
            )

    def check_cells(self, rows: int, width: int, column: str | None = None) -> None:
        """Validates the number of values, omitted ones included.

        Raises:
            InputError: there are too many values (status 413).
        """
        if max(rows, 1) * width > self.cells:
            what = f"column {column!r}: {rows} rows with up to" if column else f"{rows} rows of"
            raise InputError(
                f"{what} {width} values exceed the {self.cells} that a request may hold. Send fewer rows at once.", 413
            )


def shown(value: Any) -> str:
    """Returns a value's JSON kind or Python type and the beginning of its repr, for a message."""
    kinds = {dict: "an object", list: "a list", tuple: "a list", type(None): "null"}
    text = brief(value)
    return f"{kinds.get(type(value), type(value).__name__)} {text[:40]}{'...' if len(text) > 40 else ''}"


def brief(value: Any) -> str:
    """Returns the first 100 characters of a value's repr, without building the whole repr."""
    return _REPR.repr(value)[:100]


def shortened(text: str) -> str:
    """Returns the first 100 characters of a client's text, quoted."""
    return repr(text) if len(text) <= 100 else f"{text[:100]!r}..."
