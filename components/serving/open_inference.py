"""The Open Inference Protocol, version 2 (REST), with its binary tensor extension: requests in, responses out.

https://github.com/kserve/open-inference-protocol, https://github.com/triton-inference-server/server
(docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from components.model_bundle import BundleInfo, RawFeature, answers
from components.serving.inputs import InputError

BINARY_HEADER = "inference-header-content-length"
DATATYPES = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
        "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    }.items()
}  # fmt: skip
_TEXT = "BYTES"


@dataclass(frozen=True)
class InferRequest:
    """A decoded request.

    Attributes:
        id: the client's, or a new one.
        given: raw feature -> values, see `components.serving.inputs.columns_of`.
        outputs: output -> whether it is wanted as binary; empty: all of them.
        binary: whether outputs that are not named are wanted as binary.
    """

    id: str
    given: dict[str, Any]
    outputs: dict[str, bool]
    binary: bool


def decode(body: bytes, json_length: int | None, info: BundleInfo) -> InferRequest:
    """Reads a request.

    Args:
        body: JSON, or JSON and then the binary tensors.
        json_length: length of the JSON; None: all of it.
        info: of the model.

    Raises:
        InputError: it is not of this protocol, or names outputs that there are not.
    """
    if json_length is not None and not 0 <= json_length <= len(body):
        raise InputError(f"header {BINARY_HEADER}: {json_length} is not within the body of {len(body)} bytes.")
    head, tail = (body, b"") if json_length is None else (body[:json_length], memoryview(body)[json_length:])
    document = read_json(head)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(i, dict) for i in inputs):
        raise InputError("'inputs' must be a list of tensors: {name, shape, datatype, data}.")
    request_id = document.get("id")
    if not isinstance(request_id, str | None):
        raise InputError("'id' must be a text.")
    given: dict[str, Any] = {}
    at = 0
    for tensor in inputs:
        name = tensor.get("name")
        if not isinstance(name, str):
            raise InputError("an input has no 'name'.")
        if name in given:
            raise InputError(f"column {name!r} is there twice.")
        size = _parameters(tensor, f"column {name!r}").get("binary_data_size")
        if size is None:
            given[name] = _from_json(name, tensor)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or size < 0 or at + size > len(tail):
            raise InputError(f"column {name!r}: binary_data_size {size} is not within the {len(tail)} bytes after the JSON.")
        given[name] = _from_bytes(name, tensor, bytes(tail[at : at + size]))
        at += size
    if at != len(tail):
        raise InputError(f"{len(tail) - at} bytes of the body belong to no input.")
    parameters = _parameters(document, "the request")
    return InferRequest(
        request_id or str(uuid.uuid4()), given, _wanted(document, info), parameters.get("binary_data_output") is True
    )


def read_json(body: bytes) -> dict[str, Any]:
    """Returns a JSON object.

    Raises:
        InputError: it is none.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InputError("the body must be a JSON object.")
    return document


def _parameters(of: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    found = of.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{what}: 'parameters' must be an object.")
    return found


def _shape(name: str, tensor: Mapping[str, Any]) -> list[int]:
    shape = tensor.get("shape")
    sizes = shape if isinstance(shape, list) else []
    if not 1 <= len(sizes) <= 2 or not all(type(n) is int and n >= 0 for n in sizes):
        raise InputError(f"column {name!r}: 'shape' must be [rows], [rows, 1] or [rows, width], received {shape!r}.")
    return sizes


def _datatype(name: str, tensor: Mapping[str, Any]) -> str:
    datatype = str(tensor.get("datatype"))
    if datatype != _TEXT and datatype not in DATATYPES:
        raise InputError(f"column {name!r}: datatype {datatype!r} is not one of {', '.join(DATATYPES)}, {_TEXT}.")
    return datatype


def _from_json(name: str, tensor: Mapping[str, Any]) -> Any:
    shape, datatype = _shape(name, tensor), _datatype(name, tensor)
    data = tensor.get("data")
    if not isinstance(data, list):
        raise InputError(f"column {name!r}: 'data' must be a list.")
    if len(shape) == 2 and len(data) == shape[0] and (not data or isinstance(data[0], list)):
        if any(not isinstance(row, list) or len(row) != shape[1] for row in data):
            raise InputError(f"column {name!r}: 'data' does not have the shape {shape}.")
        data = [value for row in data for value in row]
    count = int(np.prod(shape))
    if len(data) != count:
        raise InputError(f"column {name!r}: the shape {shape} takes {count} values, 'data' has {len(data)}.")
    kinds = set(map(type, data)) - {type(None)}
    allowed = {str} if datatype == _TEXT else {bool} if datatype == "BOOL" else {int, float}
    if not kinds <= allowed:
        wanted = {_TEXT: "texts", "BOOL": "true or false"}.get(datatype, "numbers")
        received = next(v for v in data if type(v) in kinds - allowed)
        raise InputError(f"column {name!r}: datatype {datatype} takes {wanted}, received {received!r}.")
    if len(shape) == 1 or shape[1] == 1:
        return data
    return [data[i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])]


def _from_bytes(name: str, tensor: Mapping[str, Any], raw: bytes) -> np.ndarray:
    shape, datatype = _shape(name, tensor), _datatype(name, tensor)
    count = int(np.prod(shape))
    if datatype == _TEXT:
        texts = _read_texts(name, raw)
        if len(texts) != count:
            raise InputError(f"column {name!r}: the shape {shape} takes {count} texts, the binary data has {len(texts)}.")
        found = np.empty(count, dtype=object)
        found[:] = texts
        return found.reshape(shape)
    dtype = DATATYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        raise InputError(
            f"column {name!r}: {count} values of {datatype} take {count * dtype.itemsize} bytes, received {len(raw)}."
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def _read_texts(name: str, raw: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise InputError(f"column {name!r}: the binary data ends within a text.")
        found.append(raw[at + 4 : end])
        at = end
    return found


def _wanted(document: Mapping[str, Any], info: BundleInfo) -> dict[str, bool]:
    outputs = document.get("outputs")
    if outputs is None:
        return {}
    if not isinstance(outputs, list) or not all(isinstance(o, dict) and isinstance(o.get("name"), str) for o in outputs):
        raise InputError("'outputs' must be a list of objects with a 'name'.")
    known = [o["name"] for o in output_metadata(info)]
    for output in outputs:
        if output["name"] not in known:
            raise InputError(f"output {output['name']!r} is unknown. Outputs: {', '.join(known)}.")
    return {o["name"]: _parameters(o, f"output {o['name']!r}").get("binary_data") is True for o in outputs}


def encode(name: str, version: str, request: InferRequest, info: BundleInfo, scores: np.ndarray) -> tuple[bytes, dict[str, str]]:
    """Returns a response's body and headers for scores (B, outputs)."""
    outputs: list[dict[str, Any]] = []
    tails: list[bytes] = []
    kinds = {o["name"]: o["datatype"] for o in output_metadata(info)}
    for key, values in answers(info, scores).items():
        if request.outputs and key not in request.outputs:
            continue
        output: dict[str, Any] = {"name": key, "datatype": kinds[key], "shape": [len(values)]}
        if request.outputs.get(key, False) if request.outputs else request.binary:
            raw = _to_bytes(values, kinds[key])
            output["parameters"] = {"binary_data_size": len(raw)}
            tails.append(raw)
        else:
            output["data"] = values.tolist()
        outputs.append(output)
    head = orjson.dumps({"model_name": name, "model_version": version, "id": request.id, "outputs": outputs})
    if not tails:
        return head, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", BINARY_HEADER: str(len(head))}
    return b"".join([head, *tails]), headers


def _to_bytes(values: np.ndarray, datatype: str) -> bytes:
    if datatype != _TEXT:
        return values.astype(DATATYPES[datatype]).tobytes()
    texts = [str(v).encode() for v in values]
    return b"".join(len(t).to_bytes(4, "little") + t for t in texts)


def metadata(name: str, versions: list[str], info: BundleInfo) -> dict[str, Any]:
    """Returns a model's metadata as the protocol wants it."""
    return {
        "name": name,
        "versions": versions,
        "platform": f"switchyard_{info.framework.rpartition(':')[2]}",
        "inputs": [input_metadata(f) for f in info.features],
        "outputs": output_metadata(info),
    }


def input_metadata(feature: RawFeature) -> dict[str, Any]:
    """Returns a raw feature as the protocol describes it; the parameter `optional` says that it may be missing."""
    kind = {"string": _TEXT, "int64": "INT64", "float32": "FP32"}[feature.dtype]
    wide = (feature.width or 1) > 1 or feature.is_list
    found: dict[str, Any] = {"name": feature.name, "datatype": kind, "shape": [-1, feature.width or -1] if wide else [-1]}
    if feature.width is None:
        found["parameters"] = {"optional": True}
    return found


def output_metadata(info: BundleInfo) -> list[dict[str, Any]]:
    """Returns the outputs as the protocol describes them: `prediction` and, for classes, probabilities."""
    if not info.classes:
        return [{"name": "prediction", "datatype": "FP64", "shape": [-1]}]
    kind = _TEXT if isinstance(info.classes[0], str) else "INT64"
    names = ["probability"] if info.task == "binary" else [f"probability_{c}" for c in info.classes]
    return [
        {"name": "prediction", "datatype": kind, "shape": [-1]},
        *({"name": n, "datatype": "FP64", "shape": [-1]} for n in names),
    ]
