"""Implements MLflow's scoring protocol, `POST /invocations`: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv

from switchyard.components.bundle.model import BundleInfo, format_predictions
from switchyard.components.errors import first_line
from switchyard.components.serving.bounds import Bounds, InputError, shortened
from switchyard.components.serving.inputs import check_names
from switchyard.components.serving.json_body import read_json
from switchyard.components.values.base64_values import from_base64

_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_BOUNDS = Bounds()
_MORE_COLUMNS = 1000  # columns beyond the model's that are read from a CSV's first line, to name the unknown ones
_ARROWS_COLUMN = re.compile(r"CSV column #([0-9]+)")


def decode(body: bytes | bytearray, content_type: str, info: BundleInfo, bounds: Bounds = _BOUNDS) -> dict[str, Any]:
    """Returns raw feature -> values, see `switchyard.components.serving.inputs.columns_of`.

    A text in a bytes column is base64: MLflow's clients encode `binary` columns of a signature that way.

    Args:
        body: JSON or CSV.
        content_type: content type of the body; empty means JSON.
        info: metadata of the bundle.
        bounds: limits of a request.

    Raises:
        InputError: the body is neither CSV nor JSON in one of MLflow's formats, has unknown columns, or is too large.
    """
    given = _decoded(body, content_type, info, bounds)
    return given | {f.name: _bytes_of(f.name, given[f.name]) for f in info.features if f.is_bytes and f.name in given}


def _bytes_of(name: str, values: Any) -> Any:
    if isinstance(values, pa.Array):
        values = values.to_pylist()
    if isinstance(values, list):
        return [_bytes_of(name, v) for v in values]
    if not isinstance(values, str):
        return values
    try:
        return from_base64(values)
    except ValueError as error:
        raise InputError(f'column {name!r} holds bytes: send base64, as a text or {{"b64": ...}}; a value {error}.') from None


def _decoded(body: bytes | bytearray, content_type: str, info: BundleInfo, bounds: Bounds) -> dict[str, Any]:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/csv":
        return _from_csv(body, info, bounds)
    if kind not in ("", "application/json"):
        raise InputError(f"content type {shortened(kind)} is not supported; send application/json or text/csv.", 415)
    document = read_json(body, info, bounds)
    present = [f for f in _FORMATS if f in document]
    unknown = set(document) - {*_FORMATS, "params"}
    if len(present) != 1 or unknown:
        received = ", ".join(map(shortened, sorted(document)[:5])) or "none"
        raise InputError(f"the body must hold one of {', '.join(_FORMATS)}, received {received}.")
    if document.get("params"):
        raise InputError("'params': this model has none; remove it.")
    value = document[present[0]]
    if present[0] == "dataframe_split":
        return _split(value, info, bounds)
    if present[0] == "inputs" and isinstance(value, dict):
        check_names(info, value)
        return {k: v if isinstance(v, list) else [v] for k, v in value.items()}
    return _records(value, present[0], info, bounds)


def _split(value: Any, info: BundleInfo, bounds: Bounds) -> dict[str, Any]:
    columns, data = (value.get("columns"), value.get("data")) if isinstance(value, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(data, list) or not all(isinstance(c, str) for c in columns):
        raise InputError("'dataframe_split' must hold 'columns' (names) and 'data' (rows).")
    if len(set(columns)) != len(columns):
        raise InputError("'dataframe_split': duplicate column.")
    check_names(info, columns)
    bounds.check_rows(len(data))
    for i, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            raise InputError(f"'dataframe_split': row {i} does not have {len(columns)} values.")
    return {name: [row[i] for row in data] for i, name in enumerate(columns)}


def _records(value: Any, key: str, info: BundleInfo, bounds: Bounds) -> dict[str, Any]:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError(f"{key!r} must be a list of objects, one per row.")
    bounds.check_rows(len(value))
    if not value:
        raise InputError("no rows: send one or more.")
    names = dict.fromkeys(name for row in value for name in row)
    check_names(info, names)
    bounds.check_cells(len(value), len(names))
    if all(len(row) == len(names) for row in value):
        return {name: [row[name] for row in value] for name in names}
    found: dict[str, list[Any]] = {name: [None] * len(value) for name in names}
    for i, row in enumerate(value):
        for name, cell in row.items():
            found[name][i] = cell
    return found


def _from_csv(body: bytes | bytearray, info: BundleInfo, bounds: Bounds) -> dict[str, Any]:
    names: list[str] = []
    try:
        names, rest = _csv_names(body, info)
        if len(set(names)) != len(names):
            raise InputError("the CSV has a duplicate column.")
        check_names(info, names)
        if not rest.nbytes:
            raise InputError("no rows: send one or more.")
        # The header is parsed by `_csv_names` and not by Arrow, which bounds the number of columns.
        table = pa.csv.read_csv(
            pa.BufferReader(rest),
            read_options=pa.csv.ReadOptions(use_threads=False, column_names=names),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError, csv.Error) as error:
        reason = _ARROWS_COLUMN.sub(lambda found: f"column {names[int(found[1])]!r}", first_line(error))
        raise InputError(f"the body is not CSV of the model's columns: {reason}") from None
    bounds.check_rows(table.num_rows)
    return {n: table[n].combine_chunks() for n in names}


def _csv_names(body: bytes | bytearray, info: BundleInfo) -> tuple[list[str], memoryview]:
    """Returns the column names of the first line, and the rest of the body."""
    # `csv.reader` reads empty lines one by one, and holds the GIL while it parses millions of names.
    content = body.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    most = _MORE_COLUMNS + sum(1 + f.name.count(",") for f in info.features)
    read = 0

    def lines(file: TextIO) -> Iterator[str]:
        nonlocal read
        for line in file:
            if line.count(",") > most:
                raise InputError(f"the first line of the CSV has more than {most} columns; the model has {len(info.features)}.")
            read += len(line.encode())
            yield line

    with io.TextIOWrapper(io.BytesIO(content), "utf-8", newline="") as file:
        names = next((row for row in csv.reader(lines(file)) if row), [])
    return names, memoryview(content)[read:]


def encode(info: BundleInfo, scores: np.ndarray) -> bytes:
    """Returns `{"predictions": [one object per row]}`, MLflow's response for a DataFrame."""
    columns = {k: v.tolist() for k, v in format_predictions(info, scores).items()}
    return orjson.dumps({"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]})
