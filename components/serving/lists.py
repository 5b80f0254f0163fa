"""Converts list columns in parts: NumPy and Arrow hold the GIL while they convert a list of millions."""

from __future__ import annotations

from array import array
from itertools import chain, islice
from typing import Any

import numpy as np

from switchyard.components.serving.bounds import InputError
from switchyard.components.values.cells import FLOAT32_MAX
from switchyard.components.values.raw_features import Ragged, RawFeature
from switchyard.components.values.spelling import FLOAT, INTEGER
from switchyard.components.values.targets import EXACT

_PART = 1 << 16
_MOST = 1 << 20  # maximum values of a column that are converted at once
_PLAIN = ("", INTEGER, FLOAT)


def kinds_of(values: list[Any]) -> set[type]:
    """Returns the set of the values' types."""
    if len(values) <= _PART:
        return set(map(type, values))
    found: set[type] = set()
    for at in range(0, len(values), _PART):
        found |= set(map(type, values[at : at + _PART]))
    return found


def plain_lists(feature: RawFeature, values: list[Any]) -> np.ndarray | Ragged | None:
    """Returns lists of the feature's own type as input of the transform graph; None if they need the slow path.

    Raises:
        InputError: there are more texts than TensorFlow can convert without blocking other requests.
    """
    lengths = np.array([0 if v is None else len(v) if type(v) is list else -1 for v in values], dtype=np.int64)
    if (lengths < 0).any() or (feature.width is not None and (lengths != feature.width).any()):
        return None
    is_text = feature.dtype == "string"
    if not is_text and feature.meaning not in _PLAIN:
        return None
    count = int(lengths.sum())
    if is_text and count > _MOST:
        raise InputError(
            f"column {feature.name!r} holds {count} texts; at most {_MOST} are allowed. Send fewer rows at once.", 413
        )
    cells = np.empty(count, dtype=object if is_text else feature.dtype)
    flat = chain.from_iterable(v for v in values if v is not None)
    at = 0
    while part := list(islice(flat, _PART)):
        found = _texts(part) if is_text else _numbers(part, feature.dtype)
        if found is None:
            return None
        cells[at : at + len(part)] = found
        at += len(part)
    return Ragged(cells, lengths) if feature.width is None else cells.reshape(len(values), feature.width)


def check_unusual(feature: RawFeature, values: list[Any], rows: int) -> None:
    """Limits the number of values in a column that has values of other types than the feature's.

    Raises:
        InputError: there are too many values (status 413).
    """
    left = most = max(_MOST, 2 * rows)
    todo: list[Any] = [values]
    while todo:
        each = todo.pop()
        left -= len(each)
        if left < 0:
            what = "texts" if feature.dtype == "string" else "numbers"
            raise InputError(
                (
                    f"column {feature.name!r} holds more than {most} values, some of which are not {what}. Send fewer rows at "
                    "once."
                ),
                413,
            )
        todo += [v for v in (each.values() if isinstance(each, dict) else each) if isinstance(v, list | dict)]


def _texts(part: list[Any]) -> list[bytes] | None:
    kinds = set(map(type, part))
    if kinds == {bytes}:
        return part
    try:
        return [v.encode() for v in part] if kinds == {str} else None
    except UnicodeEncodeError:
        return None


def _numbers(part: list[Any], dtype: str) -> np.ndarray | None:
    kinds = set(map(type, part))
    if not kinds <= {int, float}:
        return None
    try:
        found = np.frombuffer(array("d", part))
    except OverflowError:
        return None
    largest = np.abs(found).max()
    if largest > FLOAT32_MAX or ((int in kinds or dtype == "int64") and largest >= EXACT):
        return None
    return None if dtype == "int64" and (found != np.trunc(found)).any() else found
