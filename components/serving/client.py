"""Encodes rows as request payloads and parses scores from a server's responses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from switchyard.components.bundle.model import BundleInfo, RawFeature
from switchyard.components.values.base64_values import KEY, as_json, holds_bytes, in_base64

# A DataFrame, or column -> values of the rows, of which a part is taken in a fraction of the time.
Rows = pd.DataFrame | Mapping[str, Sequence[Any]]
_DATATYPES = {"string": "BYTES", "int64": "INT64", "float32": "FP64"}


def tensors(rows: Rows, features: Iterable[RawFeature]) -> list[dict[str, Any]]:
    """Returns rows (see `components.bundle.rows.frame_of`) as JSON inputs of the Open Inference Protocol.

    A missing value is null. A column with bytes that are not UTF-8 is sent as base64. The protocol does not support lists of
    different lengths; use `records` for them.
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


def records(rows: Rows, features: Iterable[RawFeature]) -> list[dict[str, Any]]:
    """Returns rows as `dataframe_records` or `instances` of MLflow's protocol, one object per row."""
    columns = {f.name: [_wrapped(v) if f.is_bytes else plain(v) for v in rows[f.name]] for f in features}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain(value: Any) -> Any:
    """Returns one value of a row as a JSON value."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return None
    if isinstance(value, bytes):
        return as_json(value)
    if isinstance(value, np.ndarray):
        return [plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _wrapped(value: Any) -> Any:
    """Returns a value of a bytes column as `{"b64": ...}`; the server reads a plain text in such a column as base64."""
    if isinstance(value, np.ndarray):
        return [_wrapped(v) for v in value]
    return {KEY: in_base64(value)} if isinstance(value, bytes) else plain(value)


def _in_base64(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_in_base64(v) for v in value]
    return in_base64(value) if isinstance(value, bytes) else None


def from_tensors(outputs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns column -> values of a response in the Open Inference Protocol."""
    return {o["name"]: _rows(o["data"], o["shape"][1:]) for o in outputs}


def _rows(data: list[Any], shape: Sequence[int]) -> list[Any]:
    """Returns a tensor's flat values as one value per row, or one flat list of a row with a shape of its own."""
    size = math.prod(shape)
    return [data[i : i + size] for i in range(0, len(data), size)] if shape else data


def from_records(predictions: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns column -> values of a response of `/invocations`."""
    return {name: [row[name] for row in predictions] for name in predictions[0]} if predictions else {}


def scores_in(answer: Mapping[str, Sequence[Any]], info: BundleInfo) -> np.ndarray:
    """Returns a response's scores in the layout of `BundleModel.scores`, float64 (B, outputs).

    Raises:
        KeyError: a column is missing.
        ValueError: a value is not a number.
    """
    if info.output_shape:
        return np.asarray(answer[info.score_names[0]], dtype=np.float64).reshape(-1, info.outputs)
    return np.stack([np.asarray(answer[n], dtype=np.float64) for n in info.score_names], axis=1)
