"""MLflow's scoring protocol, `POST /invocations`: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv

from components.errors import first_line
from components.model_bundle import BundleInfo, answers
from components.serving.inputs import InputError
from components.serving.open_inference import read_json

_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def decode(body: bytes, content_type: str, info: BundleInfo) -> dict[str, Any]:
    """Returns raw feature -> values, see `components.serving.inputs.columns_of`.

    Raises:
        InputError: neither JSON of one of MLflow's formats nor CSV.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/csv":
        return _from_csv(body, info)
    if kind not in ("", "application/json"):
        raise InputError(f"content type {kind!r} is not taken; send application/json or text/csv.", 415)
    document = read_json(body)
    present = [f for f in _FORMATS if f in document]
    unknown = set(document) - {*_FORMATS, "params"}
    if len(present) != 1 or unknown:
        raise InputError(f"the body must hold one of {', '.join(_FORMATS)}, received {sorted(document)[:5]}.")
    if document.get("params"):
        raise InputError("'params': this model takes none.")
    value = document[present[0]]
    if present[0] == "dataframe_split":
        return _split(value)
    if present[0] == "inputs" and isinstance(value, dict):
        return {k: v if isinstance(v, list) else [v] for k, v in value.items()}
    return _records(value, present[0])


def _split(value: Any) -> dict[str, Any]:
    columns, data = (value.get("columns"), value.get("data")) if isinstance(value, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(data, list) or not all(isinstance(c, str) for c in columns):
        raise InputError("'dataframe_split' must hold 'columns' (names) and 'data' (rows).")
    if len(set(columns)) != len(columns):
        raise InputError("'dataframe_split': a column is there twice.")
    for i, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            raise InputError(f"'dataframe_split': row {i} does not have {len(columns)} values.")
    return {name: [row[i] for row in data] for i, name in enumerate(columns)}


def _records(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError(f"{key!r} must be a list of objects, one a row.")
    names = list(dict.fromkeys(name for row in value for name in row))
    return {name: [row.get(name) for row in value] for name in names}


def _from_csv(body: bytes, info: BundleInfo) -> dict[str, Any]:
    texts = {f.name for f in info.features if f.dtype == "string"}
    try:
        body.decode("utf-8")
        head = body[: body.index(b"\n")] if b"\n" in body else body
        names = pa.csv.read_csv(io.BytesIO(head + b"\n")).column_names
        table = pa.csv.read_csv(
            io.BytesIO(body),
            read_options=pa.csv.ReadOptions(use_threads=False),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types={n: pa.string() if n in texts else pa.float64() for n in names},
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError) as error:
        raise InputError(f"the body is not CSV of the model's columns: {first_line(error)}") from None
    if len(set(table.column_names)) != len(table.column_names):
        raise InputError("the CSV has a column twice.")
    numbers = {n: table[n].to_numpy() for n in table.column_names if n not in texts}
    return {n: table[n].to_pylist() if n in texts else np.asarray(numbers[n]) for n in table.column_names}


def encode(info: BundleInfo, scores: np.ndarray) -> bytes:
    """Returns `{"predictions": [one object a row]}`, as MLflow answers for a DataFrame."""
    columns = {k: v.tolist() for k, v in answers(info, scores).items()}
    return orjson.dumps({"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]})
