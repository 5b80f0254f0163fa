"""Builds a server's OpenAPI document from its routes and the model's columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from switchyard.components.bundle.model import BundleInfo, RawFeature
from switchyard.components.serving.metadata import BOOL, DATATYPES, TEXT, accepted, output_metadata
from switchyard.components.serving.served_model import Limits
from switchyard.components.values.spelling import BOOLEAN, FIRST_SECOND, LAST_SECOND, TIME, TIMESTAMP, UNITS, unit_of
from switchyard.components.values.targets import EXACT

_OTHER_HOST = "The Host header does not name a host that is served here"


def openapi(name: str, info: BundleInfo, limits: Limits, version: str) -> dict[str, Any]:
    """Returns the server's OpenAPI 3.1 document."""
    error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    mlflow_error = {"type": "object", "properties": {"message": {"type": "string"}, "error_code": {"type": "string"}}}
    v2 = f"/v2/models/{name}"
    row = {
        "type": "object",
        "properties": {f.name: _value(f) for f in info.features},
        "required": [f.name for f in info.features if f.width is not None],
        "additionalProperties": False,
    }
    rows = {"type": "array", "items": row, "minItems": 1, "maxItems": limits.rows}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{name}, served by Switchyard", "version": version},
        "paths": {
            "/v2": {"get": _get("The server's metadata")},
            "/v2/health/live": {"get": _get("Whether the server is alive")},
            "/v2/health/ready": {"get": _get("Whether the server is ready to answer requests", ("503",))},
            v2: {"get": _get("The model's metadata", ("503",))},
            f"{v2}/ready": {"get": _get("Whether the model is ready", ("503",))},
            f"{v2}/infer": {"post": _post("Predict: Open Inference Protocol", _infer(info), _inferred(info), error)},
            "/invocations": {
                "post": _post(
                    "Predict: MLflow's scoring protocol",
                    {"type": "object", "properties": {"dataframe_records": rows}, "required": ["dataframe_records"],
                     "additionalProperties": False},
                    {"type": "object", "properties": {"predictions": {"type": "array", "items": _answer_row(info)}},
                     "required": ["predictions"]},
                    mlflow_error,
                )
            },
            "/ping": {"get": _get("The same as /v2/health/ready", ("503",))},
            "/health": {"get": _get("The same as /v2/health/ready", ("503",))},
            "/version": {"get": _get("MLflow's version", content="text/plain")},
            "/metrics": {"get": _get("For Prometheus", content="text/plain")},
            "/openapi.json": {"get": _get("This document", ("503",))},
        },
    }  # fmt: skip


def _get(summary: str, others: tuple[str, ...] = (), content: str = "application/json") -> dict[str, Any]:
    schema = {"type": "object"} if content == "application/json" else {"type": "string"}
    responses: dict[str, Any] = {"200": {"description": "Done", "content": {content: {"schema": schema}}}}
    responses |= {code: {"description": "Not yet"} for code in others}
    responses["401"] = {"description": "The token is missing or wrong"}
    responses["421"] = {"description": _OTHER_HOST}
    return {"summary": summary, "responses": responses}


def _post(summary: str, request: dict[str, Any], answer: dict[str, Any], error: dict[str, Any]) -> dict[str, Any]:
    reasons = {
        "400": "The request does not fit the model",
        "401": "The token is missing or wrong",
        "413": "Too large",
        "415": "The content type is not supported",
        "421": _OTHER_HOST,
        "503": "Too many waiting requests, or the model is being loaded: see Retry-After",
        "504": "The request timed out",
    }
    errors = {code: {"description": why, "content": {"application/json": {"schema": error}}} for code, why in reasons.items()}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {
            "200": {"description": "Predictions", "content": {"application/json": {"schema": answer}}},
            **errors,
        },
    }


def _infer(info: BundleInfo) -> dict[str, Any]:
    tensors = [tensor for f in info.features for tensor in _tensors(f)]
    needed = sum(f.width is not None for f in info.features)
    outputs = {
        "type": "object",
        "properties": {"name": {"enum": [o["name"] for o in output_metadata(info)]}},
        "required": ["name"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": {"oneOf": tensors}, "minItems": max(needed, 1), "maxItems": len(info.features)},
            "outputs": {"type": "array", "items": outputs},
        },
        "required": ["inputs"],
        "additionalProperties": False,
    }


_BASE64 = {"type": "string", "contentEncoding": "base64", "pattern": "^([A-Za-z0-9+/]{4})*$"}


def _tensors(feature: RawFeature) -> list[dict[str, Any]]:
    """Returns the schemas of a raw feature's tensor: of texts, of booleans and of numbers, as far as they are accepted."""
    datatypes = accepted(feature)
    found = []
    for datatype, values in datatypes.items():
        kind = {TEXT: "string", BOOL: "boolean"}.get(datatype, "number")
        numbers = [name for name in DATATYPES if name != BOOL]
        says = f"{datatype}{f': {values}' if values else ''}{'' if feature.width else ', may be left out'}"
        found.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": feature.name},
                    "datatype": {"enum": numbers if kind == "number" else [datatype]},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 2},
                    "data": {"type": "array", "items": {"type": kind if feature.width is not None else [kind, "null"]}},
                },
                "description": says,
                "required": ["name", "datatype", "shape", "data"],
            }
        )
    return found


def _value(feature: RawFeature) -> dict[str, Any]:
    kinds = {"string": "string", "int64": "integer", "float32": "number"}
    one: dict[str, Any] = {"type": kinds[feature.dtype]}
    if feature.is_bytes:
        one = {"anyOf": [_BASE64, {"type": "object", "properties": {"b64": _BASE64}, "required": ["b64"]}]}
    if feature.dtype == "float32":
        one |= {"minimum": -3.4e38, "maximum": 3.4e38}
    if feature.dtype == "int64":
        one |= {"minimum": -EXACT, "maximum": EXACT}
    kind, unit = feature.meaning.partition("[")[0], unit_of(feature.meaning)
    if kind == BOOLEAN:
        one = {"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}]}
    if kind in (TIMESTAMP, TIME):
        last = UNITS[unit] * (LAST_SECOND if kind == TIMESTAMP else 86_399)
        first = UNITS[unit] * (FIRST_SECOND if kind == TIMESTAMP else 0)
        count = {"type": "integer", "minimum": max(first, -EXACT), "maximum": min(last, EXACT)}
        one = {"anyOf": [{"type": "string"}, count]}
    if feature.is_list and feature.width is None:
        return {"anyOf": [{"type": "array", "items": one}, {"type": "null"}]}
    if (feature.width or 1) > 1:
        return {"type": "array", "items": one, "minItems": feature.width, "maxItems": feature.width}
    return one if feature.width is not None else {"anyOf": [one, {"type": "null"}]}


def _inferred(info: BundleInfo) -> dict[str, Any]:
    tensor = {
        "type": "object",
        "properties": {"name": {"enum": [o["name"] for o in output_metadata(info)]}, "data": {"type": "array"}},
        **_of_class(info, "probability"),
        "required": ["name", "datatype", "shape", "data"],
    }
    properties = {"model_name": {"type": "string"}, "model_version": {"type": "string"}, "id": {"type": "string"}}
    return {
        "type": "object",
        "properties": {**properties, "outputs": {"type": "array", "items": tensor}},
        "required": ["model_name", "outputs"],
    }


def _answer_row(info: BundleInfo) -> dict[str, Any]:
    kinds = {"FP64": "number", "INT64": "integer", "BYTES": "string"}
    outputs = output_metadata(info)
    return {
        "type": "object",
        "properties": {
            o["name"]: _nested({"type": kinds[o["datatype"]], **_of_class(info, o["name"])}, o["shape"][1:]) for o in outputs
        },
        "required": [o["name"] for o in outputs],
    }


def _nested(value: dict[str, Any], shape: Sequence[int]) -> dict[str, Any]:
    for size in reversed(shape):
        value = {"type": "array", "items": value, "minItems": size, "maxItems": size}
    return value


def _of_class(info: BundleInfo, output: str) -> dict[str, str]:
    is_probability = output != "prediction" and info.positive_class is not None
    return {"description": f"Of the positive class, {info.positive_class}"} if is_probability else {}
