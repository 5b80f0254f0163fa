"""The values of one column, as a client sent them, in the feature's type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.model_bundle import RawFeature
from components.serving.bounds import InputError, shown

LIMITS = {"float32": float(np.finfo(np.float32).max), "int64": float(2**63)}
_NUMBERS = {int, float, bool, type(None)}


def numbers(feature: RawFeature, values: Any, row: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64 values (B,) or (B, width), and which of them are there.

    Args:
        feature: whose they are.
        values: an array, a list, or a list of lists of one length; None and NaN are missing.
        row: that all of them are of; None: the first axis is rows.

    Raises:
        InputError: they are no numbers, or of different lengths.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "iufb":
        cells = values.astype(np.float64)
        return cells, ~np.isnan(cells)
    flat, shape = _flat(feature, values)
    # Looked at before NumPy does: beside one long text it would give every number that text's length.
    if not set(map(type, flat)) <= _NUMBERS:
        bad = [i for i, v in enumerate(flat) if v is not None and not isinstance(v, int | float | np.number)]
        if bad:
            per_row = max(1, len(flat) // shape[0])
            raise _not_numbers(feature, flat[bad[0]], [row] if row is not None else [i // per_row for i in bad])
    try:
        cells = np.array(flat, dtype=np.float64).reshape(shape)
    except OverflowError:
        raise InputError(f"column {feature.name!r} holds a number that is too large.") from None
    return cells, ~np.isnan(cells)


def texts(feature: RawFeature, values: Any, row: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the texts as bytes in an object array, and which of them are there; see `numbers`.

    Raises:
        InputError: they are no texts, or of different lengths.
    """
    flat, shape = _flat(feature, values)
    per_row = max(1, len(flat) // max(1, shape[0]))
    found = np.empty(len(flat), dtype=object)
    for i, value in enumerate(flat):
        if isinstance(value, str):
            found[i] = value.encode("utf-8", "surrogateescape")
        elif value is None or (isinstance(value, float) and np.isnan(value)):
            found[i] = None
        elif isinstance(value, bytes):
            found[i] = value
        else:
            at = i // per_row if row is None else row
            raise InputError(f"column {feature.name!r} must hold texts (row {at}), received {shown(value)}.", rows=[at])
    present = np.fromiter((v is not None for v in found), dtype=bool, count=len(flat))
    return found.reshape(shape), present.reshape(shape)


def fitting(feature: RawFeature, cells: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns present values in the feature's dtype; `rows` are theirs.

    Raises:
        InputError: one does not fit into it.
    """
    if feature.dtype == "string":
        return cells
    limit = LIMITS[feature.dtype]
    wrong = ~(np.abs(cells) <= limit) if feature.dtype == "float32" else ~((cells >= -limit) & (cells < limit))
    reason = f"numbers that fit {feature.dtype}"
    if feature.dtype == "int64" and not wrong.any():
        wrong, reason = cells != np.trunc(cells), "whole numbers"
    if wrong.any():
        bad = rows[wrong if wrong.ndim == 1 else wrong.any(axis=1)]
        value = float(cells[wrong][0])
        raise InputError(f"column {feature.name!r} must hold {reason} ({where(bad)}), received {value:g}.", rows=np.unique(bad))
    return cells.astype(feature.dtype)


def where(rows: Sequence[int] | np.ndarray) -> str:
    """Returns which rows are meant, in words."""
    return f"row {rows[0]}" if len(rows) == 1 else f"row {rows[0]} and {len(rows) - 1} more"


def _flat(feature: RawFeature, values: Any) -> tuple[list[Any], tuple[int, ...]]:
    """Returns all values one after the other, and the shape (B,) or, of lists of one length, (B, length) that they had."""
    if isinstance(values, np.ndarray):
        return values.ravel().tolist(), values.shape
    lists = [isinstance(v, list | tuple) for v in values]
    if not any(lists):
        return list(values), (len(values),)
    if not all(lists) or len({len(v) for v in values}) > 1:
        raise InputError(f"column {feature.name!r} holds rows of different lengths.")
    return [value for row in values for value in row], (len(values), len(values[0]))


def _not_numbers(feature: RawFeature, value: Any, rows: Sequence[int]) -> InputError:
    rows = sorted(set(rows))
    return InputError(f"column {feature.name!r} must hold numbers ({where(rows)}), received {shown(value)}.", rows=rows)
