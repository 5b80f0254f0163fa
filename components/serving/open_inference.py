"""Implements the Open Inference Protocol, version 2 (REST), with its binary tensor extension.

https://github.com/kserve/open-inference-protocol, https://github.com/triton-inference-server/server
(docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from switchyard.components.bundle.model import BundleInfo, RawFeature, format_predictions
from switchyard.components.serving.bounds import Bounds, InputError, brief, shortened
from switchyard.components.serving.inputs import check_names, wrong_width
from switchyard.components.serving.json_body import read_json
from switchyard.components.serving.lists import kinds_of
from switchyard.components.serving.metadata import BASE64, BOOL, CONTENT_TYPE, DATATYPES, TEXT, output_metadata
from switchyard.components.values.base64_values import from_base64

BINARY_HEADER = "inference-header-content-length"
# Parameters of protocol extensions that would change an output. They are not supported.
_OUTPUT_EXTENSIONS = {"classification", "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"}
# Datatype -> types of its values in JSON; objects such as {"b64": ...} are validated later, with their column.
_KINDS = {
    **{kind: {int, float, type(None)} for kind in DATATYPES},
    BOOL: {bool, type(None)},
    TEXT: {str, dict, type(None)},
}
# Of a tensor without parameters: name, datatype, shape and data.
_FIELDS = 4
_BOUNDS = Bounds()


@dataclass(frozen=True)
class InferRequest:
    """A decoded request.

    Attributes:
        id: the client's request id, or a new one.
        given: raw feature -> values, see `switchyard.components.serving.inputs.columns_of`.
        outputs: requested output -> whether to encode it as binary; empty requests all outputs.
        binary: whether to encode all outputs as binary if `outputs` is empty.
    """

    id: str
    given: dict[str, Any]
    outputs: dict[str, bool]
    binary: bool


def decode(body: bytes | bytearray, json_length: int | None, info: BundleInfo, bounds: Bounds = _BOUNDS) -> InferRequest:
    """Returns the decoded request.

    Args:
        body: JSON, optionally followed by the binary tensors.
        json_length: length of the JSON in bytes; None if the whole body is JSON.
        info: metadata of the bundle.
        bounds: limits of a request.

    Raises:
        InputError: the body does not follow the protocol, has unknown columns or outputs, or is too large.
    """
    if json_length is not None and not 0 <= json_length <= len(body):
        raise InputError(f"header {BINARY_HEADER}: {json_length} is not within the body of {len(body)} bytes.")
    head, tail = memoryview(body), memoryview(b"")
    if json_length is not None:
        head, tail = head[:json_length], head[json_length:]
    return read_request(read_json(head, info, bounds), tail, info, bounds)


def read_request(
    document: Mapping[str, Any], tail: memoryview, info: BundleInfo, bounds: Bounds, given: dict[str, Any] | None = None
) -> InferRequest:
    """Returns a request of which the JSON has been read; see `decode`.

    Args:
        document: the JSON.
        tail: the binary tensors.
        info: metadata of the bundle.
        bounds: limits of a request.
        given: see `InferRequest.given`; None to read the inputs.
    """
    request_id = document.get("id")
    if not isinstance(request_id, str | None):
        raise InputError("'id' must be a text.")
    given = _read_tensors(_named(document), tail, info, bounds) if given is None else given
    parameters = _parameters(document, "the request")
    return InferRequest(
        request_id or str(uuid.uuid4()), given, _wanted(document, info), parameters.get("binary_data_output") is True
    )


def _named(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(i, dict) for i in inputs):
        raise InputError("'inputs' must be a list of tensors: {name, shape, datatype, data}.")
    found: dict[str, dict[str, Any]] = {}
    for tensor in inputs:
        name = tensor.get("name")
        if not isinstance(name, str):
            raise InputError("an input has no 'name'.")
        if name in found:
            raise InputError(f"column {shortened(name)} is a duplicate.")
        found[name] = tensor
    return found


def _read_tensors(tensors: Mapping[str, dict[str, Any]], tail: memoryview, info: BundleInfo, bounds: Bounds) -> dict[str, Any]:
    """Returns raw feature -> values."""
    check_names(info, tensors)
    given: dict[str, Any] = {}
    at = 0
    for name, tensor in tensors.items():
        feature = info.by_name.get(name)
        if feature is not None and (usual := _usual(feature, tensor, bounds)) is not None:
            given[name] = usual
            continue
        # A stored index is parsed to find the start of the next tensor, but not used.
        shape = _shape(feature or RawFeature(name, "string", None), tensor, bounds)
        size = _parameters(tensor, f"column {name!r}").get("binary_data_size")
        if size is None:
            given[name] = _from_json(name, tensor, shape)
            continue
        if tensor.get("data"):
            raise InputError(f"column {name!r} has both 'data' and binary_data_size; send one of them.")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0 or at + size > len(tail):
            raise InputError(
                f"column {name!r}: binary_data_size {brief(size)} is not within the {len(tail)} bytes after the JSON."
            )
        given[name] = _from_bytes(name, tensor, shape, tail[at : at + size])
        at += size
    if at != len(tail):
        raise InputError(f"{len(tail) - at} bytes of the body do not belong to an input.")
    return given


def _usual(feature: RawFeature, tensor: Mapping[str, Any], bounds: Bounds) -> list[Any] | None:
    """Returns the values of a tensor of JSON values, one per row, without parameters; None if it needs the detailed checks."""
    datatype, shape, data = tensor.get("datatype"), tensor.get("shape"), tensor.get("data")
    if len(tensor) != _FIELDS or type(datatype) is not str or type(shape) is not list or type(data) is not list:
        return None
    if not feature.is_scalar or shape != [len(data)] or type(shape[0]) is not int or len(data) > bounds.rows:
        return None
    return data if kinds_of(data) <= _KINDS.get(datatype, set()) else None


def _parameters(of: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    found = of.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{what}: 'parameters' must be an object.")
    return found


def _shape(feature: RawFeature, tensor: Mapping[str, Any], bounds: Bounds) -> list[int]:
    shape = tensor.get("shape")
    sizes = shape if isinstance(shape, list) else []
    if not 1 <= len(sizes) <= 2 or not all(type(n) is int and n >= 0 for n in sizes):
        raise InputError(f"column {feature.name!r}: 'shape' must be [rows], [rows, 1] or [rows, width], received {brief(shape)}.")
    rows, width = sizes if len(sizes) == 2 else (sizes[0], 1)
    bounds.check_rows(rows)
    if feature.is_list and feature.width is None:
        bounds.check_cells(rows, width, feature.name)
    elif width != (feature.width or 1):
        raise wrong_width(feature, sizes)
    return sizes


def _datatype(name: str, tensor: Mapping[str, Any]) -> str:
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or (datatype != TEXT and datatype not in DATATYPES):
        raise InputError(f"column {name!r}: datatype {brief(datatype)} is not one of {', '.join(DATATYPES)}, {TEXT}.")
    return datatype


def _from_json(name: str, tensor: Mapping[str, Any], shape: list[int]) -> Any:
    datatype = _datatype(name, tensor)
    data = tensor.get("data")
    if not isinstance(data, list):
        raise InputError(f"column {name!r}: 'data' must be a list.")
    if len(shape) == 2 and len(data) == shape[0] and (not data or isinstance(data[0], list)):
        if any(not isinstance(row, list) or len(row) != shape[1] for row in data):
            raise InputError(f"column {name!r}: 'data' does not have the shape {shape}.")
        data = [value for row in data for value in row]
    count = math.prod(shape)
    if len(data) != count:
        raise InputError(f"column {name!r}: the shape {shape} takes {count} values, 'data' has {len(data)}.")
    kinds = kinds_of(data)
    allowed = _KINDS[datatype]
    if not kinds <= allowed:
        wanted = {TEXT: "texts", BOOL: "true or false"}.get(datatype, "numbers")
        received = next(v for v in data if type(v) in kinds - allowed)
        raise InputError(f"column {name!r}: datatype {datatype} takes {wanted}, received {brief(received)}.")
    if _is_base64(name, tensor):
        data = [None if v is None else _bytes_of(name, v) for v in data]
    if len(shape) == 1 or shape[1] == 1:
        return data
    return [data[i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])]


def _is_base64(name: str, tensor: Mapping[str, Any]) -> bool:
    """Whether a tensor's texts are base64, marked by the parameter `content_type` as MLServer's clients do."""
    found = _parameters(tensor, f"column {name!r}").get(CONTENT_TYPE)
    if found == BASE64 and tensor.get("datatype") != TEXT:
        raise InputError(f"column {name!r}: content_type {BASE64} is for {TEXT}, received {brief(tensor.get('datatype'))}.")
    return bool(found == BASE64)


def _bytes_of(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return value
    try:
        return from_base64(value if isinstance(value, str) else bytes(value).decode("latin-1"))
    except ValueError as error:
        raise InputError(f"column {name!r}: content_type {BASE64}, and a value {error}.") from None


def _from_bytes(name: str, tensor: Mapping[str, Any], shape: list[int], raw: memoryview) -> np.ndarray:
    datatype = _datatype(name, tensor)
    count = math.prod(shape)
    if datatype == TEXT:
        found = np.empty(count, dtype=object)
        texts = _read_texts(name, shape, count, raw)
        found[:] = [_bytes_of(name, t) for t in texts] if _is_base64(name, tensor) else texts
        return found.reshape(shape)
    dtype = DATATYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        raise InputError(
            f"column {name!r}: {count} values of {datatype} take {count * dtype.itemsize} bytes, received {len(raw)}."
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def _read_texts(name: str, shape: list[int], count: int, raw: memoryview) -> list[bytes]:
    """Returns `count` texts, each prefixed by its length as a four-byte little-endian integer."""
    found: list[bytes] = []
    at = 0
    while at < len(raw) and len(found) < count:
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise InputError(f"column {name!r}: the binary data ends inside a text.")
        found.append(bytes(raw[at + 4 : end]))
        at = end
    if len(found) != count or at != len(raw):
        has = len(found) if at == len(raw) else "more"
        raise InputError(f"column {name!r}: the shape {shape} takes {count} texts, the binary data has {has}.")
    return found


def _wanted(document: Mapping[str, Any], info: BundleInfo) -> dict[str, bool]:
    outputs = document.get("outputs")
    if outputs is None:
        return {}
    if not isinstance(outputs, list) or not all(isinstance(o, dict) and isinstance(o.get("name"), str) for o in outputs):
        raise InputError("'outputs' must be a list of objects with a 'name'.")
    known = {o["name"]: o for o in output_metadata(info)}
    for output in outputs:
        if output["name"] not in known:
            raise InputError(f"output {shortened(output['name'])} is unknown. Outputs: {', '.join(known)}.")
        for key in _OUTPUT_EXTENSIONS & _parameters(output, f"output {output['name']!r}").keys():
            raise InputError(f"output {output['name']!r}: the parameter {key!r} is not supported; remove it.")
    return {o["name"]: _parameters(o, f"output {o['name']!r}").get("binary_data") is True for o in outputs}


def encode(name: str, version: str, request: InferRequest, info: BundleInfo, scores: np.ndarray) -> tuple[bytes, dict[str, str]]:
    """Returns the response body and headers for scores (B, outputs)."""
    outputs: list[dict[str, Any]] = []
    tails: list[bytes] = []
    for key, kind, values in outputs_of(request, info, scores):
        output: dict[str, Any] = {"name": key, "datatype": kind, "shape": list(values.shape)}
        if request.outputs.get(key, False) if request.outputs else request.binary:
            raw = to_bytes(values, kind)
            output["parameters"] = {"binary_data_size": len(raw)}
            tails.append(raw)
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    head = orjson.dumps({"model_name": name, "model_version": version, "id": request.id, "outputs": outputs})
    if not tails:
        return head, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", BINARY_HEADER: str(len(head))}
    return b"".join([head, *tails]), headers


def outputs_of(request: InferRequest, info: BundleInfo, scores: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields name, datatype and values of the requested outputs for scores (B, outputs)."""
    kinds = {o["name"]: o["datatype"] for o in output_metadata(info)}
    for key, values in format_predictions(info, scores).items():
        if not request.outputs or key in request.outputs:
            yield key, kinds[key], values


def to_bytes(values: np.ndarray, datatype: str) -> bytes:
    """Returns values as a binary tensor."""
    if datatype != TEXT:
        return values.astype(DATATYPES[datatype]).tobytes()
    texts = [str(v).encode() for v in values]
    return b"".join(len(t).to_bytes(4, "little") + t for t in texts)
