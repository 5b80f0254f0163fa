"""Decodes and encodes the messages of the Open Inference Protocol's gRPC service as the same requests that REST has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from switchyard.components.bundle.model import BundleInfo
from switchyard.components.serving.bounds import Bounds, InputError, shortened
from switchyard.components.serving.grpc_messages import MESSAGES, parameters_of, set_parameters
from switchyard.components.serving.inputs import check_names, left_aside
from switchyard.components.serving.metadata import DATATYPES, TEXT, metadata
from switchyard.components.serving.open_inference import InferRequest, outputs_of, read_request, to_bytes

# Parameter of REST's binary tensors, which here is the length of the raw contents.
_SIZE = "binary_data_size"
# Datatype -> the field of InferTensorContents with its values. FP16 has none.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", TEXT: "bytes_contents",
}  # fmt: skip
_SMALL = 64 << 10
# Allowance per column and per message beside the values.
_BESIDE, _AROUND = 32, 1000
# Fields that hold messages, by number, of: a request, an input, a requested output.
_CONTENTS_FIELDS: Mapping[int, Any] = {}
_ENTRY: Mapping[int, Any] = {2: {}}
_NESTED = {4: _ENTRY, 5: {4: _ENTRY, 5: _CONTENTS_FIELDS}, 6: {2: _ENTRY}}


def parse(data: bytes, info: BundleInfo, bounds: Bounds) -> Any:
    """Returns a ModelInferRequest.

    Raises:
        InputError: the bytes are none, or are many and have more fields than the allowed rows of the model can have.
    """
    if len(data) > _SMALL:
        cells = bounds.rows * sum((f.width or 1) + 1 for f in info.features)
        most = len(data) if any(f.is_list for f in info.features) else cells + _BESIDE * len(info.features) + _AROUND
        if _fields(memoryview(data), most) > most:
            raise InputError(
                f"the message holds more fields than {bounds.rows} rows of this model need. Send several requests.", 413
            )
    return message("ModelInferRequest", data)


def message(name: str, data: bytes) -> Any:
    """Returns a message of the service.

    Raises:
        InputError: the bytes are none.
    """
    try:
        return MESSAGES[name].FromString(data)
    except Exception as error:  # protobuf's DecodeError has no public base
        raise InputError(f"the message is no {name}: {error}") from None


def _fields(data: memoryview, most: int) -> int:
    """Returns the number of fields in a request and the messages in it; stops above `most`. Broken bytes end the count."""
    found = 0
    todo: list[tuple[int, int, Mapping[int, Any]]] = [(0, len(data), _NESTED)]
    while todo:
        at, end, nested = todo.pop()
        while at < end and found <= most:
            key, at = _varint(data, at, end)
            kind = key & 7
            size = 8 if kind == 1 else 4 if kind == 5 else 0
            if kind in (0, 2):
                size, at = _varint(data, at, end)
            if kind == 2:
                inner = nested.get(key >> 3)
                if inner is not None:
                    todo.append((at, min(at + size, end), inner))
            elif kind == 0:
                size = 0
            at += size
            found += 1
    return found


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            return value, end
    return value, at


def decode(request: Any, info: BundleInfo, bounds: Bounds) -> InferRequest:
    """Returns the decoded request; see `open_inference.decode`.

    Args:
        request: a ModelInferRequest.
        info: metadata of the bundle.
        bounds: limits of a request.

    Raises:
        InputError: the message does not follow the protocol, has unknown columns or outputs, or is too large.
    """
    raws = list(request.raw_input_contents)
    if raws and len(raws) != len(request.inputs):
        raise InputError(f"raw_input_contents has {len(raws)} values for {len(request.inputs)} inputs; send one for each.")
    document: dict[str, Any] = {"id": request.id, "parameters": parameters_of(request.parameters)}
    if request.outputs:
        document["outputs"] = [{"name": o.name, "parameters": parameters_of(o.parameters)} for o in request.outputs]
    usual = _usual(request.inputs, raws, info, bounds)
    if usual is not None:
        return read_request(document, memoryview(b""), info, bounds, usual)
    inputs, tails = [], []
    for number, tensor in enumerate(request.inputs):
        raw = raws[number] if raws else _packed(tensor)
        if raws and tensor.HasField("contents"):
            raise InputError(f"column {shortened(tensor.name)} has both contents and raw_input_contents; send one of them.")
        parameters = {**parameters_of(tensor.parameters), _SIZE: len(raw)}
        inputs.append({"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape), "parameters": parameters})
        tails.append(raw)
    return read_request({**document, "inputs": inputs}, memoryview(b"".join(tails)), info, bounds)


def _usual(tensors: Any, raws: list[bytes], info: BundleInfo, bounds: Bounds) -> dict[str, Any] | None:
    """Returns raw feature -> values of raw tensors of one number per row; None if one of them needs the detailed checks."""
    if not raws:
        return None
    given: dict[str, Any] = {}
    for tensor, raw in zip(tensors, raws, strict=True):
        feature, dtype, shape = info.by_name.get(tensor.name), DATATYPES.get(tensor.datatype), tensor.shape
        if feature is None or dtype is None or tensor.parameters or tensor.HasField("contents") or not feature.is_scalar:
            return None
        if len(shape) != 1 or not 0 <= shape[0] <= bounds.rows or len(raw) != shape[0] * dtype.itemsize:
            return None
        given[tensor.name] = np.frombuffer(raw, dtype)
    if len(given) < len(tensors):  # a duplicate
        return None
    check_names(info, given)
    return given


def _packed(tensor: Any) -> bytes:
    """Returns a tensor's contents as raw contents."""
    field = _CONTENTS.get(tensor.datatype)
    used = [each.name for each, _ in tensor.contents.ListFields()]
    if any(name != field for name in used):
        where = f"in {field}" if field else "in raw_input_contents"
        if tensor.datatype not in DATATYPES and tensor.datatype != TEXT:
            where = f"of one of {', '.join(DATATYPES)}, {TEXT}"
        raise InputError(
            f"column {shortened(tensor.name)}: send values of {shortened(tensor.datatype)} {where}, not in {used[0]}."
        )
    if field is None:
        return b""
    values = list(getattr(tensor.contents, field))
    if tensor.datatype == TEXT:
        return b"".join(len(v).to_bytes(4, "little") + v for v in values)
    dtype = DATATYPES[tensor.datatype]
    found = np.array(values, dtype=np.dtype(dtype.kind + "8") if dtype.kind in "iu" else dtype)
    if dtype.kind in "iu" and (found.astype(dtype) != found).any():
        raise InputError(f"column {shortened(tensor.name)}: a value is beyond {tensor.datatype}.")
    return found.astype(dtype).tobytes()


def encode(name: str, version: str, request: InferRequest, info: BundleInfo, scores: np.ndarray) -> bytes:
    """Returns a ModelInferResponse for scores (B, outputs), with raw contents."""
    response = MESSAGES["ModelInferResponse"](model_name=name, model_version=version, id=request.id)
    for key, kind, values in outputs_of(request, info, scores):
        response.outputs.add(name=key, datatype=kind, shape=values.shape)
        response.raw_output_contents.append(to_bytes(values, kind))
    # REST's header of the same name.
    set_parameters(response.parameters, left_aside(info, request.given))
    return bytes(response.SerializeToString())


def encode_metadata(name: str, versions: list[str], info: BundleInfo) -> bytes:
    """Returns a ModelMetadataResponse."""
    found = metadata(name, versions, info)
    response = MESSAGES["ModelMetadataResponse"](name=found["name"], versions=found["versions"], platform=found["platform"])
    for tensors, target in ((found["inputs"], response.inputs), (found["outputs"], response.outputs)):
        for tensor in tensors:
            made = target.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
            set_parameters(made.parameters, tensor.get("parameters", {}))
    return bytes(response.SerializeToString())
