"""Rows as clients send them, and the scores in what a server answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from switchyard.components.bundle.model import BundleInfo, RawFeature
from switchyard.components.values.base64_values import KEY, as_json, holds_bytes, in_base64

_DATATYPES = {"string": "BYTES", "int64": "INT64", "float32": "FP64"}


def tensors(rows: pd.DataFrame, features: Iterable[RawFeature]) -> list[dict[str, Any]]:
    """Returns rows (see `components.evaluation.predictions.frame_of`) as inputs of the Open Inference Protocol, as JSON.

    A missing value is null; bytes that are no text make their column one of base64. Lists of different lengths have no place in
    that protocol: see `records`.
    """
    found = []
    for feature in features:
        values = [plain(v) for v in rows[feature.name]]
        wide = bool(values) and isinstance(values[0], list)
        shape = [len(values), len(values[0])] if wide else [len(values)]
        tensor: dict[str, Any] = {"name": feature.name, "shape": shape, "datatype": _DATATYPES[feature.dtype], "data": values}
        if holds_bytes(values):
            tensor |= {"parameters": {"content_type": "base64"}, "data": [_in_base64(v) for v in rows[feature.name]]}
        found.append(tensor)
    return found


def records(rows: pd.DataFrame, features: Iterable[RawFeature]) -> list[dict[str, Any]]:
    """Returns rows as `dataframe_records` or `instances` of MLflow's protocol: one object a row."""
    columns = {f.name: [_wrapped(v) if f.is_bytes else plain(v) for v in rows[f.name]] for f in features}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain(value: Any) -> Any:
    """Returns one value of a row as JSON has it."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return None
    if isinstance(value, bytes):
        return as_json(value)
    if isinstance(value, np.ndarray):
        return [plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _wrapped(value: Any) -> Any:
    """Returns a value of a column of bytes, in which a text would be base64."""
    if isinstance(value, np.ndarray):
        return [_wrapped(v) for v in value]
    return {KEY: in_base64(value)} if isinstance(value, bytes) else plain(value)


def _in_base64(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_in_base64(v) for v in value]
    return in_base64(value) if isinstance(value, bytes) else None


def from_tensors(outputs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns column -> values of an answer in the Open Inference Protocol."""
    return {o["name"]: o["data"] for o in outputs}


def from_records(predictions: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns column -> values of an answer of `/invocations`."""
    return {name: [row[name] for row in predictions] for name in predictions[0]} if predictions else {}


def scores_in(answer: Mapping[str, Sequence[Any]], info: BundleInfo) -> np.ndarray:
    """Returns an answer's scores as `BundleModel.scores` has them, float64 (B, outputs).

    Raises:
        KeyError: a column is missing.
        ValueError: what should be a number is none.
    """
    names = {"regression": ["prediction"], "binary": ["probability"]}.get(
        info.task, [f"probability_{c}" for c in info.classes]
    )  # fmt: skip
    return np.stack([np.asarray(answer[n], dtype=np.float64) for n in names], axis=1)
