"""The model metadata of the Open Inference Protocol: what clients may send, and what is answered."""

from __future__ import annotations

from typing import Any

import numpy as np

from switchyard.components.bundle.model import BundleInfo, RawFeature
from switchyard.components.data.class_order import KEY as POSITIVE_CLASS
from switchyard.components.tasks import TASKS
from switchyard.components.values.spelling import BOOLEAN, TIME, TIMESTAMP, unit_of

DATATYPES = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
        "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    }.items()
}  # fmt: skip
BOOL, TEXT = "BOOL", "BYTES"
CONTENT_TYPE, BASE64 = "content_type", "base64"
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
# Meaning -> datatype and values that a client may send, the datatype of the metadata first.
_ACCEPTS = {
    BOOLEAN: {BOOL: "true or false", "INT64": "1 or 0", TEXT: "true or false"},
    TIMESTAMP: {TEXT: "ISO 8601, such as 2024-01-31 or 2024-01-31T09:00:00Z", "INT64": "{unit} since 1970-01-01 UTC"},
    TIME: {TEXT: "a time of day, such as 09:00 or 09:00:00", "INT64": "{unit} since midnight"},
}


def metadata(name: str, versions: list[str], info: BundleInfo) -> dict[str, Any]:
    """Returns the model metadata of the protocol."""
    return {
        "name": name,
        "versions": versions,
        "platform": f"switchyard_{info.framework.rpartition(':')[2]}",
        "inputs": [input_metadata(f) for f in info.features],
        "outputs": output_metadata(info),
    }


def accepted(feature: RawFeature) -> dict[str, str]:
    """Returns each datatype that a client may send a raw feature as -> its values, the datatype of the metadata first.

    The values are empty where the datatype says all. A number may be sent as any datatype of numbers.
    """
    kind = feature.meaning.partition("[")[0]
    if feature.dtype == "string" or kind not in _ACCEPTS:
        return {{"string": TEXT, "int64": "INT64", "float32": "FP32"}[feature.dtype]: ""}
    unit = _UNITS.get(unit_of(feature.meaning), "")
    return {datatype: values.format(unit=unit) for datatype, values in _ACCEPTS[kind].items()}


def input_metadata(feature: RawFeature) -> dict[str, Any]:
    """Returns a raw feature's tensor metadata.

    Its parameters mark optional features and base64; `meaning` and `accepts` say how booleans, dates and times may be sent.
    """
    datatypes = accepted(feature)
    wide = (feature.width or 1) > 1 or feature.is_list
    shape = [-1, feature.width or -1] if wide else [-1]
    found: dict[str, Any] = {"name": feature.name, "datatype": next(iter(datatypes)), "shape": shape}
    parameters: dict[str, Any] = {"optional": True} if feature.width is None else {}
    if len(datatypes) > 1:
        accepts = "; ".join(f"{datatype}: {values}" for datatype, values in datatypes.items())
        parameters |= {"meaning": feature.meaning, "accepts": accepts}
    if feature.is_bytes:
        parameters[CONTENT_TYPE] = BASE64
    return found | ({"parameters": parameters} if parameters else {})


def output_metadata(info: BundleInfo) -> list[dict[str, Any]]:
    """Returns the tensor metadata of the outputs: `prediction` and, for classification, probabilities."""
    shape = [-1, *(info.output_shape if info.outputs > 1 else ())] if info.output_shape else [-1]
    scores = [{"name": n, "datatype": "FP64", "shape": shape, **_of_class(info)} for n in info.score_names]
    if not info.classes:
        choices = TASKS[info.task].choices(info.targets)
        return [*({"name": n, "datatype": "INT64", "shape": [-1]} for n in choices), *scores]
    kind = TEXT if isinstance(info.classes[0], str) else "INT64"
    return [{"name": "prediction", "datatype": kind, "shape": [-1]}, *scores]


def _of_class(info: BundleInfo) -> dict[str, Any]:
    """Returns the positive class of a binary model as a parameter; empty for multiclass, where output names hold the class."""
    return {} if info.positive_class is None else {"parameters": {POSITIVE_CLASS: str(info.positive_class)}}
