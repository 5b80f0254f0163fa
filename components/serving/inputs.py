"""Validates a request's columns and converts them to a bundle's input; errors name the column."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain, compress
from typing import Any

import numpy as np
import pyarrow as pa

from switchyard.components.bundle.model import BundleInfo
from switchyard.components.data.added_columns import may_be_added
from switchyard.components.errors import did_you_mean
from switchyard.components.serving.bounds import Bounds, InputError, shortened, shown
from switchyard.components.serving.lists import check_unusual, plain_lists
from switchyard.components.values.cells import FLOAT32_MAX
from switchyard.components.values.conversion import MISSING, Fitted, Misfit, fit_values, model_column, only_images
from switchyard.components.values.images import pixel_count
from switchyard.components.values.raw_features import Columns, Ragged, RawFeature
from switchyard.components.values.spelling import BOOLEAN, missing_test
from switchyard.components.values.targets import EXACT

_BOUNDS = Bounds()
# Response header that lists unused columns of the request.
IGNORED_HEADER = "x-switchyard-ignored"
_SMALL = 512  # maximum values for which one loop over all columns is the faster one
_NAMED = 200  # maximum number of columns listed in a message


def check_names(info: BundleInfo, names: Collection[str]) -> None:
    """Validates column names before their values are read; accepts a stored index, which the model does not use.

    Raises:
        InputError: a column is unknown or missing, or there are no columns.
    """
    known, given = info.by_name, set(names)
    if given and given <= known.keys() and given.issuperset(info.needed):
        return
    for name in names:
        if name not in known and not may_be_added(name):
            extra = " It is the label, which the model predicts." if name in (info.label, *info.labels) else _alike(name, known)
            extra = " It holds the weights of training rows, which are no input." if name == info.sample_weight else extra
            raise InputError(f"column {shortened(name)} is unknown.{extra} Columns: {_names(info)}.")
    missing = [name for name in info.needed if name not in given]
    if missing:
        raise InputError(f"column {missing[0]!r} is missing.{_others(missing)} Columns needed: {_listed(info.needed)}.")
    if not names:
        raise InputError(f"no columns. Columns: {_names(info)}.")


def left_aside(info: BundleInfo, names: Collection[str]) -> dict[str, str]:
    """Returns the response header that lists ignored columns, such as a stored index; empty if there are none."""
    found = [repr(n) for n in names if n not in info.by_name and may_be_added(n)]
    return {IGNORED_HEADER: ", ".join(found)} if found else {}


def columns_of(info: BundleInfo, given: Mapping[str, Any], bounds: Bounds = _BOUNDS) -> tuple[Columns, int]:
    """Returns the columns and their number of rows.

    Args:
        info: metadata of the bundle.
        given: raw feature -> its values: a list of JSON values (None: missing), or an array (B,), (B, 1) or (B, width);
            NaN in a numeric array is missing. Optional features can be omitted.
        bounds: limits of a request.

    Raises:
        InputError: a column is unknown or missing; its values have the wrong type or shape, are out of range, or are missing
            in a required feature; there are no rows, or too many.
    """
    check_names(info, given)
    rows = _count(given)
    if rows == 0:
        raise InputError("no rows: send one or more.")
    bounds.check_rows(rows)
    bounds.check_cells(rows, len(info.features))
    bounds.check_pixels(rows, sum(math.prod(f.image) for f in info.features if f.image))
    ready = _plain_numbers(info, given, rows)
    return {
        f.name: ready[f.name] if f.name in ready else _column(f, given.get(f.name), rows, bounds) for f in info.features
    }, rows


def wrong_width(feature: RawFeature, shape: Sequence[int]) -> InputError:
    """Returns the error for a shape that does not match the feature."""
    wanted = "one value" if (feature.width or 1) == 1 else f"a list of {feature.width} values"
    return InputError(f"column {feature.name!r} must hold {wanted} per row, received the shape {list(shape)}.")


def _plain_numbers(info: BundleInfo, given: Mapping[str, Any], rows: int) -> Columns:
    """Returns the scalar numeric columns that need no detailed check (of types, missing values, range), converted at once.

    Checking thirty columns one by one takes a large part of a small request's time (decision 9).
    """
    flat, converted = _small_numbers(info, given, rows), info.scalar_numbers
    if not flat:
        converted = []
        for feature in info.scalar_numbers:
            try:
                doubles = _as_doubles(given.get(feature.name))
            except (TypeError, OverflowError):
                continue
            if len(doubles) == rows:
                flat.extend(doubles)
                converted.append(feature)
    if not converted:
        return {}
    cells = np.frombuffer(flat).reshape(len(converted), rows)
    sizes = np.abs(cells)
    fits = np.asarray((sizes <= FLOAT32_MAX).all(axis=1))
    whole = np.array([f.dtype == "int64" for f in converted])
    if whole.any():
        fits &= ~whole | ((sizes < EXACT) & (cells == np.trunc(cells))).all(axis=1)
    if not fits.all():
        cells, converted = cells[fits], list(compress(converted, fits))
    floats, present = cells.astype(np.float32), np.ones(rows, dtype=np.int64)
    found: dict[str, np.ndarray | Ragged] = {}
    for i, feature in enumerate(converted):
        values = floats[i] if feature.dtype == "float32" else cells[i].astype(feature.dtype)
        found[feature.name] = values[:, np.newaxis] if feature.width else Ragged(values, present)
    return found


def _small_numbers(info: BundleInfo, given: Mapping[str, Any], rows: int) -> array[float]:
    """Returns all scalar numeric columns one after the other as float64; empty if they are large or one is no list of numbers."""
    columns: list[Any] = [given.get(f.name) for f in info.scalar_numbers]
    if rows * len(columns) > _SMALL or set(map(type, columns)) != {list}:
        return array("d")
    try:
        return array("d", chain.from_iterable(columns))
    except (TypeError, OverflowError):
        return array("d")


def _as_doubles(values: Any) -> array[float]:
    """Returns numbers as float64. `np.array` of a list with one long text would give every number that text's length.

    Raises:
        TypeError: a value is missing or not a number.
        OverflowError: a value is too large.
    """
    if not isinstance(values, np.ndarray):
        return array("d", values)
    if values.dtype.kind not in "iuf":
        raise TypeError
    return array("d", values.astype(np.float64).tobytes())


def _names(info: BundleInfo) -> str:
    return _listed([f.name for f in info.features])


def _listed(names: Sequence[str]) -> str:
    named = ", ".join(names[:_NAMED])
    return named if len(names) <= _NAMED else f"{named}, ... ({len(names)} in all)"


def _alike(name: str, known: Collection[str]) -> str:
    return did_you_mean(name, known) if len(name) <= 100 and len(known) <= _NAMED else ""


def _others(missing: Sequence[str]) -> str:
    return f" Also missing: {', '.join(missing[1:6])}{', ...' if len(missing) > 6 else ''}." if len(missing) > 1 else ""


def _count(given: Mapping[str, Any]) -> int:
    """Returns the number of rows. Raises InputError if the columns differ in it."""
    kinds = set(map(type, given.values()))
    if kinds == {list} and len(lengths := set(map(len, given.values()))) == 1:
        return int(lengths.pop())
    counts = {name: _length(name, values) for name, values in given.items()}
    first, rows = next(iter(counts.items()))
    for name, count in counts.items():
        if count != rows:
            raise InputError(f"column {name!r} has {count} rows where {first!r} has {rows}.")
    return rows


def _length(name: str, values: Any) -> int:
    if (isinstance(values, np.ndarray) and values.ndim) or isinstance(values, list | tuple | pa.Array):
        return len(values)
    raise InputError(f"column {name!r} must be a list of values, one per row, received {shown(values)}.")


def _column(feature: RawFeature, values: Any, rows: int, bounds: Bounds) -> np.ndarray | Ragged:
    if values is None and feature.image:
        values = [None] * rows
    if values is None:
        return Ragged(np.empty(0, dtype=object if feature.dtype == "string" else feature.dtype), np.zeros(rows, dtype=np.int64))
    if feature.is_list and feature.width is None and not isinstance(values, pa.Array):
        # A transform graph may pad all rows to the longest one.
        longest = max(len(v) if isinstance(v, list | tuple | np.ndarray) else 1 for v in values)
        bounds.check_cells(rows, longest, feature.name)
    if isinstance(values, np.ndarray) and values.dtype == object:
        values = values.tolist()
    if isinstance(values, list):
        holds_lists = feature.is_list or feature.width not in (1, None)
        ready = plain_lists(feature, values) if holds_lists else _of_its_own_type(feature, values)
        if ready is not None and not feature.image:
            return ready
        check_unusual(feature, values, rows)
    found = _images(feature, values, bounds) if feature.image else fit_values(values, feature)
    if found.misfits:
        raise _refusal(feature, found.misfits, rows)
    return model_column(found.values, feature)


def _images(feature: RawFeature, values: Any, bounds: Bounds) -> Fitted:
    """Returns a column of encoded images; their headers are read, and their pixels counted, before one is decoded."""
    found = fit_values(values, replace(feature, image=()))
    bounds.check_source_pixels(sum(pixel_count(v[0]) for v in found.values.to_pylist() if v), feature.name)
    return only_images(found, feature.image[2])


def _of_its_own_type(feature: RawFeature, values: list[Any]) -> np.ndarray | Ragged | None:
    """Returns a column of values of the feature's own type and nulls; None if it needs the slow path."""
    if feature.dtype == "string":
        return _plain_texts(feature, values)
    return _plain_booleans(feature, values) if feature.meaning == BOOLEAN else _numbers_with_gaps(feature, values)


def _plain_booleans(feature: RawFeature, values: list[Any]) -> np.ndarray | Ragged | None:
    if not set(map(type, values)) <= {bool, type(None)} or (feature.width is not None and None in values):
        return None
    cells = np.array([v for v in values if v is not None], dtype=np.int64)
    if feature.width is not None:
        return cells[:, np.newaxis]
    return Ragged(cells, np.array([v is not None for v in values], dtype=np.int64))


def _plain_texts(feature: RawFeature, values: list[Any]) -> np.ndarray | Ragged | None:
    if not set(map(type, values)) <= {str, type(None)}:
        return None
    is_missing = missing_test(feature.missing)
    lengths = [v is not None and not is_missing(v) for v in values]
    present = [v for v, there in zip(values, lengths, strict=True) if there]
    if feature.width is not None and len(present) < len(values):
        return None
    cells = np.empty(len(present), dtype=object)
    try:
        cells[:] = [v.encode() for v in present]
    except UnicodeEncodeError:
        return None
    return cells[:, np.newaxis] if feature.width is not None else Ragged(cells, np.asarray(lengths, dtype=np.int64))


def _numbers_with_gaps(feature: RawFeature, values: list[Any]) -> Ragged | None:
    if feature.width is not None or not feature.holds_numbers or not set(map(type, values)) <= {int, float, type(None)}:
        return None
    try:
        cells = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    present = ~np.isnan(cells)
    cells = cells[present]
    limit = np.abs(cells).max(initial=0.0)
    if limit > FLOAT32_MAX or (feature.dtype == "int64" and (limit >= EXACT or (cells != np.trunc(cells)).any())):
        return None
    return Ragged(cells.astype(feature.dtype), present.astype(np.int64))


def _refusal(feature: RawFeature, misfits: Sequence[Misfit], rows: int) -> InputError:
    """Returns the error for a column's misfits: the first reason and the rows that it applies to."""
    first = misfits[0]
    bad = np.asarray([m.row for m in misfits if m.reason == first.reason], dtype=np.int64)
    every = np.asarray([m.row for m in misfits], dtype=np.int64)
    if first.reason == MISSING:
        reason = f"must not be missing ({_where(bad)}): it had a value in every training row."
        return InputError(f"column {feature.name!r} {reason}", rows=every)
    if isinstance(first.value, list | tuple) and feature.width is not None and len(first.value) != feature.width:
        same = {len(m.value) for m in misfits if isinstance(m.value, list | tuple)}
        refusal = wrong_width(feature, [rows, *(same if len(same) == 1 else [])])
        return InputError(str(refusal), rows=every)
    number = isinstance(first.value, int | float) and not isinstance(first.value, bool) and "numbers" in first.reason
    received = f"{first.value:g}" if number and abs(first.value) < EXACT else str(first.value) if number else shown(first.value)
    return InputError(f"column {feature.name!r} {first.reason} ({_where(bad)}), received {received}.", rows=every)


def _where(rows: np.ndarray) -> str:
    """Returns the rows as text: the first one and the number of others."""
    return f"row {rows[0]}" if len(rows) == 1 else f"row {rows[0]} and {len(rows) - 1} more"
