"""Converts raw values to a trained column's type without loss, or reports misfits by row; used by training and serving.

`docs/data.md` lists the rules in one table.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.components.errors import UserError
from switchyard.components.values.base64_values import may_hold_bytes, unwrapped
from switchyard.components.values.fitted import MISSING, Fitted, Misfit, fit_target, received
from switchyard.components.values.images import fault, is_image
from switchyard.components.values.raw_features import Columns, Ragged, RawFeature
from switchyard.components.values.spelling import FLOAT, INTEGER, TEXT, unit_of
from switchyard.components.values.targets import FLOAT32_MAX, Target, arrow_type, reason_of

__all__ = [
    "MISSING", "Fitted", "FittedRows", "Misfit", "fit", "fit_frame", "fit_rows", "fit_target", "fit_values", "model_column",
    "only_images", "single", "target_of", "typed_rows",
]  # fmt: skip

_KINDS = {"int64": INTEGER, "float32": FLOAT, "string": TEXT}
_TYPED_ROWS = b"typed rows"
_NOT_ARROW = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeError)


@dataclass(frozen=True)
class FittedRows:
    """Rows converted to a model's input.

    Attributes:
        columns: columns of the rows that fit, in their order.
        fits: mask of the rows that fit, bool (B,).
        misfits: index of each other row -> reason, naming the first column that does not fit.
        fitted: feature -> its converted column, all rows.
    """

    columns: Columns
    fits: np.ndarray
    misfits: dict[int, str]
    fitted: dict[str, Fitted]


def target_of(feature: RawFeature) -> Target:
    """Returns the target type of a feature's values."""
    kind = feature.meaning.partition("[")[0] or _KINDS[feature.dtype]
    return Target(
        kind,
        unit_of(feature.meaning),
        is_list=feature.is_list or (feature.width or 1) > 1,
        spelled=tuple(feature.spelled),
        missing=tuple(feature.missing),
        unknown=not feature.meaning,
        limit=FLOAT32_MAX if feature.dtype == "float32" else math.inf,
        counts=tuple(feature.counts),
    )


def fit(column: pa.Array, feature: RawFeature) -> Fitted:
    """Returns a column of any Arrow type converted to a feature's type."""
    found = fit_target(column, target_of(feature))
    if feature.image:
        found = only_images(found, feature.image[2])
    if feature.width is None:
        return found
    lengths = pc.fill_null(pc.list_value_length(found.values), 0).to_numpy(zero_copy_only=False)
    known = {m.row for m in found.misfits}
    wrong = [int(i) for i in np.flatnonzero(lengths != feature.width) if i not in known]
    if not wrong:
        return found
    more = [
        Misfit(i, received(column[i]), f"must hold {feature.width} values per row") if lengths[i] else Misfit(i, None, MISSING)
        for i in wrong
    ]
    keep = np.ones(len(lengths), dtype=bool)
    keep[wrong] = False
    values = pc.if_else(pa.array(keep), found.values, pa.scalar(None, found.values.type))
    return Fitted(values, sorted([*found.misfits, *more], key=lambda m: m.row), found.words)


def only_images(found: Fitted, channels: int) -> Fitted:
    """Returns a fitted column with the values that cannot be decoded, or are missing, as misfits."""
    misfits = {m.row: m for m in found.misfits}
    for row, values in enumerate(found.values.to_pylist()):
        if row in misfits:
            continue
        value = values[0] if values else b""
        if reason := fault(value, channels) if value else MISSING:
            shown = f"{len(value):,} bytes" if is_image(value) else value.decode("utf-8", "replace")
            misfits[row] = Misfit(row, shown if value else None, reason)
    if not misfits:
        return found
    keep = pa.array([row not in misfits for row in range(len(found.values))], pa.bool_())
    values = pc.if_else(keep, found.values, pa.scalar(None, found.values.type))
    return Fitted(values, [misfits[row] for row in sorted(misfits)], found.words)


def fit_values(values: Sequence[Any] | np.ndarray | pa.Array | pa.ChunkedArray, feature: RawFeature) -> Fitted:
    """Returns a Python, NumPy or Arrow column converted to a feature's type; None and NaN are missing, types may be mixed."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return fit(values, feature)
    if isinstance(values, np.ndarray):
        if values.ndim == 2 and values.dtype.kind != "O":
            offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
            return fit(pa.ListArray.from_arrays(offsets, pa.array(values.ravel())), feature)
        values = values.tolist() if values.dtype.kind == "O" else values
    try:
        column = pa.array(values)
        if feature.dtype != "string" or not may_hold_bytes(column.type):
            return fit(column, feature)
    except _NOT_ARROW:
        pass
    return _by_type(unwrapped(list(values)) if feature.dtype == "string" else list(values), feature)


def fit_rows(batch: pa.RecordBatch, features: Iterable[RawFeature]) -> FittedRows:
    """Returns rows converted to the features' types; a feature without a column is missing in all rows."""
    converted: list[tuple[RawFeature, Fitted]] = []
    misfits: dict[int, str] = {}
    names = batch.schema.names
    for feature in features:
        found = _fit_field(batch, feature) if feature.name in names else fit(pa.nulls(batch.num_rows), feature)
        converted.append((feature, found))
        for misfit in found.misfits:
            misfits.setdefault(misfit.row, misfit.sentence(feature.name))
    fits = np.ones(batch.num_rows, dtype=bool)
    fits[list(misfits)] = False
    mask = pa.array(fits) if misfits else None
    columns = {f.name: model_column(v.values if mask is None else v.values.filter(mask), f) for f, v in converted}
    return FittedRows(columns, fits, misfits, {f.name: v for f, v in converted})


def typed_rows(rows: Sequence[bool]) -> dict[bytes, bytes]:
    """Returns the metadata of a text field whose values were numbers or booleans in JSON in the given rows."""
    return {_TYPED_ROWS: np.packbits(np.asarray(rows, dtype=bool)).tobytes()}


def _fit_field(batch: pa.RecordBatch, feature: RawFeature) -> Fitted:
    column, metadata = batch.column(feature.name), batch.schema.field(feature.name).metadata
    if not metadata or _TYPED_ROWS not in metadata:
        return fit(column, feature)
    typed = np.unpackbits(np.frombuffer(metadata[_TYPED_ROWS], np.uint8), count=len(column))
    return _by_type([json.loads(v) if t else v for v, t in zip(column.to_pylist(), typed, strict=True)], feature)


def fit_frame(rows: pd.DataFrame, features: Sequence[RawFeature]) -> Columns:
    """Returns a DataFrame's columns converted to the features' types.

    Raises:
        UserError: a column is missing, or its values do not fit.
    """
    columns: dict[str, np.ndarray | Ragged] = {}
    for feature in features:
        if feature.name not in rows.columns:
            if feature.width is not None:
                needed = ", ".join(f.name for f in features if f.width is not None)
                raise UserError(f"column {feature.name!r} is missing. Columns needed: {needed}.")
            columns[feature.name] = model_column(pa.nulls(len(rows), pa.list_(arrow_type(target_of(feature)))), feature)
            continue
        found = _fit_series(rows[feature.name], feature)
        if found.misfits:
            first = found.misfits[0]
            raise UserError(
                f"column {feature.name!r} must not be missing (row {first.row}): it had a value in every training row."
                if first.reason == MISSING
                else f"{first.sentence(feature.name)} (row {first.row})."
            )
        columns[feature.name] = model_column(found.values, feature)
    return columns


def model_column(values: pa.Array, feature: RawFeature) -> np.ndarray | Ragged:
    """Returns a fitted column without misfits (see `Fitted.values`) as input of the transform graph; floats become float32."""
    flat: np.ndarray = values.flatten().to_numpy(zero_copy_only=False)
    cells = flat if feature.dtype == "string" else flat.astype(feature.dtype)
    if feature.width is not None:
        return cells.reshape(len(values), feature.width)
    return Ragged(cells, pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64))


def single(values: pa.Array) -> pa.Array:
    """Returns lists of at most one value (see `Fitted.values`) as a plain column; an empty list becomes null."""
    present = pc.greater(pc.fill_null(pc.list_value_length(values), 0), 0)
    places = pc.subtract(pc.cumulative_sum(present.cast(pa.int32())), 1)
    return values.flatten().take(pc.if_else(present, places, pa.scalar(None, pa.int32())))


def _fit_series(series: pd.Series, feature: RawFeature) -> Fitted:
    try:
        column = pa.Array.from_pandas(series)
        if not may_hold_bytes(column.type):
            return fit_values(column, feature)
    except _NOT_ARROW:
        pass
    return fit_values([None if v is None or v is pd.NA or v is pd.NaT else v for v in series], feature)


def _by_type(values: list[Any], feature: RawFeature) -> Fitted:
    """Returns converted values of several types: each type is converted separately, then the order is restored."""
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for i, value in enumerate(values):
        groups[_group(value)].append(i)
    parts, order, misfits, words = [], [], [], dict[str, int]()
    for kind, places in groups.items():
        found = _fit_group(kind, [values[i] for i in places], feature)
        parts.append(found.values)
        order += places
        for misfit in found.misfits:
            row = places[misfit.row]
            reason = reason_of(values[row], target_of(feature)) if kind == "beyond" else misfit.reason
            misfits.append(Misfit(row, values[row], reason))
        words |= {w: words.get(w, 0) + n for w, n in found.words.items()}
    back = np.argsort(np.asarray(order, dtype=np.int64))
    return Fitted(pa.concat_arrays(parts).take(pa.array(back)), sorted(misfits, key=lambda m: m.row), words)


def _group(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and not isinstance(value, bool):
        return int if -(2**63) <= value < 2**63 else "beyond"
    return list if isinstance(value, list | tuple | np.ndarray) else type(value)


def _fit_group(kind: Any, values: list[Any], feature: RawFeature) -> Fitted:
    if kind == "beyond" and target_of(feature).kind != TEXT:
        values = [str(v) for v in values]  # a float column takes the nearest float, as in a CSV
    try:
        return fit(pa.array(values), feature)
    except _NOT_ARROW:
        return _by_arrow_type(values, feature)


def _by_arrow_type(values: list[Any], feature: RawFeature) -> Fitted:
    """Returns converted values that Arrow cannot hold in one array, grouped by Arrow type because each call has a fixed cost."""
    groups: defaultdict[pa.DataType | None, list[int]] = defaultdict(list)
    for i, value in enumerate(values):
        groups[_arrow_type_of(value)].append(i)
    parts = {kind: _of_one_type(kind, [values[i] for i in places], feature) for kind, places in groups.items()}
    misfits = [dataclasses.replace(m, row=groups[kind][m.row]) for kind, part in parts.items() for m in part.misfits]
    back = np.argsort(np.concatenate([np.asarray(places, dtype=np.int64) for places in groups.values()]))
    joined = pa.concat_arrays([p.values for p in parts.values()]).take(pa.array(back))
    return Fitted(joined, sorted(misfits, key=lambda m: m.row))


def _arrow_type_of(value: Any) -> pa.DataType | None:
    """Returns a value's own Arrow type; None when Arrow has none and for objects, whose types may all differ."""
    if isinstance(value, dict) or (isinstance(value, list | tuple) and any(isinstance(v, dict | list | tuple) for v in value)):
        return None
    try:
        return pa.array([value]).type
    except _NOT_ARROW:
        return None


def _of_one_type(kind: pa.DataType | None, values: list[Any], feature: RawFeature) -> Fitted:
    if kind is not None:
        try:
            return fit(pa.array(values, kind), feature)
        except _NOT_ARROW:
            if len(values) > 1:
                half = len(values) // 2
                return _concatenated([_of_one_type(kind, part, feature) for part in (values[:half], values[half:])])
    target = target_of(feature)
    misfits = [Misfit(i, value, reason_of(value, target)) for i, value in enumerate(values)]
    return Fitted(pa.nulls(len(values), pa.list_(arrow_type(target))), misfits)


def _concatenated(parts: Sequence[Fitted]) -> Fitted:
    starts = np.cumsum([0, *(len(p.values) for p in parts)])
    misfits = [dataclasses.replace(m, row=m.row + int(at)) for at, p in zip(starts, parts, strict=False) for m in p.misfits]
    return Fitted(pa.concat_arrays([p.values for p in parts]), misfits)
