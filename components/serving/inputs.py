"""From what a client sent to the columns that a bundle takes. Everything that could go wrong is refused here, by name."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from components.added_columns import may_be_added
from components.errors import did_you_mean
from components.model_bundle import BundleInfo, Columns, Ragged, RawFeature
from components.serving.bounds import Bounds, InputError, shortened, shown
from components.serving.cells import LIMITS, fitting, numbers, texts, where

_BOUNDS = Bounds()
# In an answer: columns of the request that were not used.
IGNORED_HEADER = "x-switchyard-ignored"
_NAMED = 200  # columns, in a message


def check_names(info: BundleInfo, names: Collection[str]) -> None:
    """Refuses names that are not the model's, before anything is done with their values; a stored index is left aside.

    Raises:
        InputError: a column is unknown or missing, or there is none.
    """
    known = {f.name for f in info.features}
    for name in names:
        if name not in known and not may_be_added(name):
            extra = " It is the label, which the model predicts." if name == info.label else _alike(name, known)
            raise InputError(f"column {shortened(name)} is unknown.{extra} Columns: {_names(info)}.")
    missing = [f.name for f in info.features if f.width is not None and f.name not in names]
    if missing:
        raise InputError(f"column {missing[0]!r} is missing.{_others(missing)} Columns needed: {_names(info)}.")
    if not names:
        raise InputError(f"no columns. Columns: {_names(info)}.")


def left_aside(info: BundleInfo, names: Collection[str]) -> dict[str, str]:
    """Returns the header that names columns of a request that the model does not know, an index; empty without one."""
    known = {f.name for f in info.features}
    found = [repr(n) for n in names if n not in known and may_be_added(n)]
    return {IGNORED_HEADER: ", ".join(found)} if found else {}


def columns_of(info: BundleInfo, given: Mapping[str, Any], bounds: Bounds = _BOUNDS) -> tuple[Columns, int]:
    """Returns the columns, and how many rows they have.

    Args:
        info: of the bundle.
        given: raw feature -> its values: a list as JSON has it (None: missing), or an array (B,), (B, 1) or (B, width);
            in a numeric array NaN is missing. A feature that may be missing may be left out.
        bounds: what a request may hold.

    Raises:
        InputError: a column is unknown or missing, its values have another type or shape, lie out of range or are missing
            where the model needs them; there are no rows, or too many.
    """
    check_names(info, given)
    counts = {name: _length(name, values) for name, values in given.items()}
    first, rows = next(iter(counts.items()))
    for name, count in counts.items():
        if count != rows:
            raise InputError(f"column {name!r} has {count} rows where {first!r} has {rows}.")
    if rows == 0:
        raise InputError("no rows: send one or more.")
    bounds.check_rows(rows)
    bounds.check_cells(rows, len(info.features))
    ready = _plain_numbers(info, given, rows)
    return {
        f.name: ready[f.name] if f.name in ready else _column(f, given.get(f.name), rows, bounds) for f in info.features
    }, rows


def wrong_width(feature: RawFeature, shape: Sequence[int]) -> InputError:
    """Returns the refusal of a shape that is not the feature's."""
    wanted = "one value" if (feature.width or 1) == 1 else f"a list of {feature.width} values"
    return InputError(f"column {feature.name!r} must hold {wanted} a row, received the shape {list(shape)}.")


def _plain_numbers(info: BundleInfo, given: Mapping[str, Any], rows: int) -> Columns:
    """All columns of one number a row at once, which is what most requests are; empty when there is anything to say of one.

    Thirty columns checked one by one are a large part of a small request (decision 9).
    """
    scalars = [f for f in info.features if f.dtype != "string" and f.width in (1, None) and not f.is_list and f.name in given]
    flat = array("d")
    try:
        for feature in scalars:
            flat.extend(_as_doubles(given[feature.name]))
    except (TypeError, OverflowError):
        return {}
    if not scalars or len(flat) != len(scalars) * rows:
        return {}
    cells = np.frombuffer(flat).reshape(len(scalars), rows)
    whole = [i for i, f in enumerate(scalars) if f.dtype == "int64"]
    fits = (np.abs(cells) <= LIMITS["float32"]).all() and (np.abs(cells[whole]) < LIMITS["int64"]).all()
    if not fits or (cells[whole] != np.trunc(cells[whole])).any():
        return {}
    found: dict[str, np.ndarray | Ragged] = {}
    for feature, values in zip(scalars, cells, strict=True):
        typed = values.astype(feature.dtype)
        found[feature.name] = typed[:, np.newaxis] if feature.width else Ragged(typed, np.ones(rows, dtype=np.int64))
    return found


def _as_doubles(values: Any) -> array[float]:
    """Returns numbers as they are. Not by NumPy: beside one long text it would give every number that text's length.

    Raises:
        TypeError: one is none, or is missing.
        OverflowError: one is too large.
    """
    if not isinstance(values, np.ndarray):
        return array("d", values)
    if values.dtype.kind not in "iuf":
        raise TypeError
    return array("d", values.astype(np.float64).tobytes())


def _names(info: BundleInfo) -> str:
    named = ", ".join(f.name for f in info.features[:_NAMED])
    return named if len(info.features) <= _NAMED else f"{named}, ... ({len(info.features)} in all)"


def _alike(name: str, known: Collection[str]) -> str:
    return did_you_mean(name, known) if len(name) <= 100 and len(known) <= _NAMED else ""


def _others(missing: Sequence[str]) -> str:
    return f" Missing too: {', '.join(missing[1:6])}{', ...' if len(missing) > 6 else ''}." if len(missing) > 1 else ""


def _length(name: str, values: Any) -> int:
    if (isinstance(values, np.ndarray) and values.ndim) or isinstance(values, list | tuple):
        return len(values)
    raise InputError(f"column {name!r} must be a list of values, one a row, received {shown(values)}.")


def _column(feature: RawFeature, values: Any, rows: int, bounds: Bounds) -> np.ndarray | Ragged:
    if values is None:
        return Ragged(np.empty(0, dtype=_dtype(feature)), np.zeros(rows, dtype=np.int64))
    if feature.is_list and feature.width is None:
        return _lists(feature, values, bounds)
    cells, present = texts(feature, values) if feature.dtype == "string" else numbers(feature, values)
    width = feature.width or 1
    if cells.ndim == 1 and width == 1:
        cells, present = cells[:, np.newaxis], present[:, np.newaxis]
    if cells.ndim != 2 or cells.shape[1] != width:
        raise wrong_width(feature, cells.shape)
    if feature.width is None:
        present = present[:, 0]
        return Ragged(fitting(feature, cells[present, 0], np.flatnonzero(present)), present.astype(np.int64))
    if not present.all():
        bad = np.flatnonzero(~present.all(axis=1))
        raise InputError(
            f"column {feature.name!r} must not be missing ({where(bad)}): it had a value in every training row.", rows=bad
        )
    return fitting(feature, cells, np.arange(rows))


def _lists(feature: RawFeature, values: Any, bounds: Bounds) -> Ragged:
    """One list a row, of any length; None or an empty one is missing."""
    # A transform graph may fill rows up to the longest of them.
    bounds.check_cells(len(values), max(len(v) if isinstance(v, list | tuple | np.ndarray) else 1 for v in values), feature.name)
    parts, lengths = [], np.zeros(len(values), dtype=np.int64)
    for i, given in enumerate(values):
        row = list(given) if isinstance(given, list | tuple | np.ndarray) else [given]
        if given is None or not row:
            continue
        cells, present = texts(feature, row, i) if feature.dtype == "string" else numbers(feature, row, i)
        if cells.ndim != 1 or not present.all():
            raise InputError(
                f"column {feature.name!r} must hold a flat list of values without gaps a row (row {i}), "
                f"received {shown(row)}.", rows=[i]
            )  # fmt: skip
        parts.append(fitting(feature, cells, np.full(len(cells), i)))
        lengths[i] = len(cells)
    return Ragged(np.concatenate(parts) if parts else np.empty(0, dtype=_dtype(feature)), lengths)


def _dtype(feature: RawFeature) -> Any:
    return object if feature.dtype == "string" else feature.dtype
