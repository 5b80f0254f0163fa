"""From what a client sent to the columns that a bundle takes. Everything that could go wrong is refused here, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.errors import UserError, did_you_mean
from components.model_bundle import BundleInfo, Columns, Ragged, RawFeature

_LIMITS = {"float32": float(np.finfo(np.float32).max), "int64": float(2**63)}


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


def columns_of(info: BundleInfo, given: Mapping[str, Any], max_rows: int | None = None) -> tuple[Columns, int]:
    """Returns the columns, and how many rows they have.

    Args:
        info: of the bundle.
        given: raw feature -> its values: a list as JSON has it (None: missing), or an array (B,), (B, 1) or (B, width);
            in a numeric array NaN is missing. A feature that may be missing may be left out.
        max_rows: more are refused.

    Raises:
        InputError: a column is unknown or missing, its values have another type or shape, lie out of range or are missing
            where the model needs them; there are no rows, or too many.
    """
    names = [f.name for f in info.features]
    for name in given:
        if name not in names:
            extra = " It is the label, which the model predicts." if name == info.label else did_you_mean(name, names)
            raise InputError(f"column {name!r} is unknown.{extra} Columns: {', '.join(names)}.")
    missing = [f.name for f in info.features if f.width is not None and f.name not in given]
    if missing:
        raise InputError(f"column {missing[0]!r} is missing.{_others(missing)} Columns needed: {', '.join(names)}.")
    if not given:
        raise InputError(f"no columns. Columns: {', '.join(names)}.")
    counts = {name: _length(name, values) for name, values in given.items()}
    first, rows = next(iter(counts.items()))
    for name, count in counts.items():
        if count != rows:
            raise InputError(f"column {name!r} has {count} rows where {first!r} has {rows}.")
    if rows == 0:
        raise InputError("no rows: send one or more.")
    if max_rows is not None and rows > max_rows:
        raise InputError(f"{rows} rows in a request; at most {max_rows} are taken. Send several requests.", 413)
    ready = _plain_numbers(info, given, rows)
    return {f.name: ready[f.name] if f.name in ready else _column(f, given.get(f.name), rows) for f in info.features}, rows


def _plain_numbers(info: BundleInfo, given: Mapping[str, Any], rows: int) -> Columns:
    """All columns of one number a row at once, which is what most requests are; empty when there is anything to say of one.

    Thirty columns checked one by one are a large part of a small request (decision 9).
    """
    scalars = [f for f in info.features if f.dtype != "string" and f.width in (1, None) and not f.is_list and f.name in given]
    if not scalars:
        return {}
    try:
        cells = np.array([given[f.name] for f in scalars])
    except ValueError:
        return {}
    if cells.dtype.kind not in "iuf" or cells.size != len(scalars) * rows:
        return {}
    cells = cells.reshape(len(scalars), rows).astype(np.float64)
    whole = [i for i, f in enumerate(scalars) if f.dtype == "int64"]
    fits = (np.abs(cells) <= _LIMITS["float32"]).all() and (np.abs(cells[whole]) < _LIMITS["int64"]).all()
    if not fits or (cells[whole] != np.trunc(cells[whole])).any():
        return {}
    found: dict[str, np.ndarray | Ragged] = {}
    for feature, values in zip(scalars, cells, strict=True):
        typed = values.astype(feature.dtype)
        found[feature.name] = typed[:, np.newaxis] if feature.width else Ragged(typed, np.ones(rows, dtype=np.int64))
    return found


def _others(missing: Sequence[str]) -> str:
    return f" Missing too: {', '.join(missing[1:6])}{', ...' if len(missing) > 6 else ''}." if len(missing) > 1 else ""


def _length(name: str, values: Any) -> int:
    if (isinstance(values, np.ndarray) and values.ndim) or isinstance(values, list | tuple):
        return len(values)
    raise InputError(f"column {name!r} must be a list of values, one a row, received {_shown(values)}.")


def _column(feature: RawFeature, values: Any, rows: int) -> np.ndarray | Ragged:
    if values is None:
        return Ragged(np.empty(0, dtype=_dtype(feature)), np.zeros(rows, dtype=np.int64))
    if feature.is_list and feature.width is None:
        return _lists(feature, values)
    texts = feature.dtype == "string"
    cells, present = _texts(feature, values) if texts else _numbers(feature, values)
    width = feature.width or 1
    if cells.ndim == 1 and width == 1:
        cells, present = cells[:, np.newaxis], present[:, np.newaxis]
    if cells.ndim != 2 or cells.shape[1] != width:
        wanted = "one value" if width == 1 else f"a list of {width} values"
        raise InputError(f"column {feature.name!r} must hold {wanted} a row, received the shape {list(cells.shape)}.")
    if feature.width is None:
        present = present[:, 0]
        return Ragged(_fitting(feature, cells[present, 0], np.flatnonzero(present)), present.astype(np.int64))
    if not present.all():
        bad = np.flatnonzero(~present.all(axis=1))
        raise InputError(
            f"column {feature.name!r} must not be missing ({_where(bad)}): it had a value in every training row.", rows=bad
        )
    return _fitting(feature, cells, np.arange(rows))


def _lists(feature: RawFeature, values: Any) -> Ragged:
    """One list a row, of any length; None or an empty one is missing."""
    parts, lengths = [], np.zeros(len(values), dtype=np.int64)
    for i, given in enumerate(values):
        row = list(given) if isinstance(given, list | tuple | np.ndarray) else [given]
        if given is None or not row:
            continue
        cells, present = _texts(feature, row, i) if feature.dtype == "string" else _numbers(feature, row, i)
        if cells.ndim != 1 or not present.all():
            raise InputError(
                f"column {feature.name!r} must hold a flat list of values without gaps a row (row {i}), "
                f"received {_shown(row)}.", rows=[i]
            )  # fmt: skip
        parts.append(_fitting(feature, cells, np.full(len(cells), i)))
        lengths[i] = len(cells)
    return Ragged(np.concatenate(parts) if parts else np.empty(0, dtype=_dtype(feature)), lengths)


def _numbers(feature: RawFeature, values: Any, row: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64 values, and which of them are there."""
    if not isinstance(values, np.ndarray):
        try:
            values = np.asarray(values)
        except ValueError:
            raise InputError(f"column {feature.name!r} holds rows of different lengths.") from None
    if values.dtype.kind == "O":
        flat = values.ravel()
        bad = [i for i, v in enumerate(flat) if v is not None and not isinstance(v, int | float | np.number)]
        if bad:
            wrong = [row] if row is not None else [i // (flat.size // len(values)) for i in bad]
            raise _not_numbers(feature, flat[bad[0]], wrong)
        try:
            values = np.asarray([np.nan if v is None else float(v) for v in flat]).reshape(values.shape)
        except OverflowError:
            raise InputError(f"column {feature.name!r} holds a number that is too large.") from None
    elif values.dtype.kind in "US":
        flat = values.ravel()
        raise _not_numbers(feature, flat[0].item(), [row] if row is not None else range(len(values)))
    elif values.dtype.kind not in "iufb":
        raise InputError(f"column {feature.name!r} must hold numbers, received {values.dtype}.")
    cells = values.astype(np.float64)
    return cells, ~np.isnan(cells)


def _not_numbers(feature: RawFeature, value: Any, rows: Any) -> InputError:
    rows = sorted(set(rows))
    return InputError(f"column {feature.name!r} must hold numbers ({_where(rows)}), received {_shown(value)}.", rows=rows)


def _texts(feature: RawFeature, values: Any, row: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the texts as bytes in an object array, and which of them are there."""
    cells = _objects(feature, values)
    flat = cells.reshape(-1)
    per_row = max(1, flat.size // max(1, len(cells)))
    for i, value in enumerate(flat):
        if isinstance(value, str):
            flat[i] = value.encode("utf-8", "surrogateescape")
        elif value is None or (isinstance(value, float) and np.isnan(value)):
            flat[i] = None
        elif not isinstance(value, bytes):
            at = i // per_row if row is None else row
            raise InputError(f"column {feature.name!r} must hold texts (row {at}), received {_shown(value)}.", rows=[at])
    present = np.fromiter((v is not None for v in flat), dtype=bool, count=flat.size)
    return flat.reshape(cells.shape), present.reshape(cells.shape)


def _objects(feature: RawFeature, values: Any) -> np.ndarray:
    """Returns a new object array (B,) or, of lists of one length, (B, length)."""
    if isinstance(values, np.ndarray):
        return values.astype(object)
    lists = [isinstance(v, list | tuple) for v in values]
    if not any(lists):
        found = np.empty(len(values), dtype=object)
        found[:] = values
        return found
    if not all(lists) or len({len(v) for v in values}) > 1:
        raise InputError(f"column {feature.name!r} holds rows of different lengths.")
    found = np.empty((len(values), len(values[0])), dtype=object)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            found[i, j] = value
    return found


def _fitting(feature: RawFeature, cells: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns present values in the feature's dtype; `rows` are theirs."""
    if feature.dtype == "string":
        return cells
    limit = _LIMITS[feature.dtype]
    wrong = ~(np.abs(cells) <= limit) if feature.dtype == "float32" else ~((cells >= -limit) & (cells < limit))
    reason = f"numbers that fit {feature.dtype}"
    if feature.dtype == "int64" and not wrong.any():
        wrong, reason = cells != np.trunc(cells), "whole numbers"
    if wrong.any():
        bad = rows[wrong if wrong.ndim == 1 else wrong.any(axis=1)]
        value = float(cells[wrong][0])
        raise InputError(f"column {feature.name!r} must hold {reason} ({_where(bad)}), received {value:g}.", rows=np.unique(bad))
    return cells.astype(feature.dtype)


def _dtype(feature: RawFeature) -> Any:
    return object if feature.dtype == "string" else feature.dtype


def _where(rows: Sequence[int] | np.ndarray) -> str:
    return f"row {rows[0]}" if len(rows) == 1 else f"row {rows[0]} and {len(rows) - 1} more"


def _shown(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", tuple: "a list", type(None): "null"}
    text = repr(value)
    return f"{kinds.get(type(value), type(value).__name__)} {text[:40]}{'...' if len(text) > 40 else ''}"
