"""The metadata and the OpenAPI document name what a client may send, and just that is accepted."""

import orjson
import pytest

from switchyard.components.bundle.model import BundleInfo, RawFeature
from switchyard.components.serving.inputs import columns_of
from switchyard.components.serving.metadata import DATATYPES, accepted, input_metadata
from switchyard.components.serving.open_inference import decode
from switchyard.components.serving.openapi import openapi
from switchyard.components.serving.served_model import Limits

DAY = RawFeature("day", "int64", 1, meaning="timestamp[s]", spelled=["2024-01-31"])
FEATURES = [
    DAY,
    RawFeature("at", "int64", None, meaning="timestamp[ms]"),
    RawFeature("time", "int64", 1, meaning="time[s]"),
    RawFeature("paid", "int64", 1, meaning="boolean"),
    RawFeature("count", "int64", 1, meaning="integer"),
    RawFeature("price", "float32", 1, meaning="float"),
    RawFeature("word", "string", 1, meaning="text"),
]
# Column -> datatype -> the same value.
VALUES = {
    "day": {"BYTES": "2024-01-31", "INT64": 1706659200},
    "at": {"BYTES": "2024-01-31T09:00:00.250Z", "INT64": 1706691600250},
    "time": {"BYTES": "09:30:00", "INT64": 34200},
    "paid": {"BOOL": True, "INT64": 1, "BYTES": "true"},
    "count": {"INT64": 7},
    "price": {"FP32": 2.5},
    "word": {"BYTES": "a"},
}


def test_a_date_is_a_text_in_the_metadata_which_says_what_else_is_accepted():
    assert input_metadata(DAY) == {
        "name": "day",
        "datatype": "BYTES",
        "shape": [-1],
        "parameters": {
            "meaning": "timestamp[s]",
            "accepts": "BYTES: ISO 8601, such as 2024-01-31 or 2024-01-31T09:00:00Z; INT64: seconds since 1970-01-01 UTC",
        },
    }
    assert input_metadata(FEATURES[3])["datatype"] == "BOOL"
    assert input_metadata(FEATURES[4]) == {"name": "count", "datatype": "INT64", "shape": [-1]}


@pytest.mark.parametrize("is_binary", [False, True])
@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.name)
def test_every_datatype_that_is_offered_gives_the_same_value(feature, is_binary):
    info = BundleInfo("pytorch", "pytorch", "binary", "y", ["no", "yes"], [feature])
    given = VALUES[feature.name]
    assert list(accepted(feature)) == list(given)
    found = []
    for datatype, value in given.items():
        tensor, tail = {"name": feature.name, "shape": [1], "datatype": datatype}, b""
        if is_binary:
            text = str(value).encode()
            tail = len(text).to_bytes(4, "little") + text if datatype == "BYTES" else DATATYPES[datatype].type(value).tobytes()
            tensor["parameters"] = {"binary_data_size": len(tail)}
        else:
            tensor["data"] = [value]
        head = orjson.dumps({"inputs": [tensor]})
        columns, _ = columns_of(info, decode(head + tail, len(head), info).given)
        column = columns[feature.name]
        found.append(getattr(column, "values", column).ravel().tolist())
    assert found == [found[0]] * len(given)


def test_the_openapi_document_has_a_tensor_for_each_datatype_that_is_offered():
    info = BundleInfo("pytorch", "pytorch", "binary", "y", ["no", "yes"], FEATURES)
    paths = openapi("m", info, Limits(), "1")["paths"]
    inputs = paths["/v2/models/m/infer"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]["inputs"]
    found = {name: [] for name in VALUES}
    for tensor in inputs["items"]["oneOf"]:
        properties = tensor["properties"]
        found[properties["name"]["const"]].append((properties["datatype"]["enum"], properties["data"]["items"]["type"]))
    for name, datatypes in VALUES.items():
        for datatype, value in datatypes.items():
            [kind] = [kind for allowed, kind in found[name] if datatype in allowed]
            wanted = {str: "string", bool: "boolean"}.get(type(value), "number")
            assert kind == wanted or (name == "at" and kind == [wanted, "null"])
    assert inputs["maxItems"] == len(FEATURES)
