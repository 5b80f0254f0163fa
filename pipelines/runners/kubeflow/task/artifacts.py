"""Converts between TFX artifacts and KFP artifacts, within the limits of KFP's backend.

The backend changes metadata between tasks (backend/src/v2/metadata/converter.go): integers and booleans become floats, lists
and mappings are wrapped, null is rejected, and entries are added. Therefore only strings and numbers are stored as they are;
other values are stored as JSON strings with a prefix.
"""

from __future__ import annotations

import json
import os
from typing import Any

from google.protobuf import json_format
from ml_metadata.proto import metadata_store_pb2
from tfx.types import artifact as tfx_artifact

from switchyard.pipelines.runners.kubeflow.contract import NODE, TYPE, URI

_ADDED_BY_KFP = {"display_name", "store_session_info"}
_JSON = "json:"
_ID = "tfx_id"


def to_tfx(kfp: Any, cls: type[tfx_artifact.Artifact], uri: str) -> tfx_artifact.Artifact:
    """Converts a KFP artifact back to the TFX artifact it was made from.

    Args:
        kfp: a `dsl.Artifact`.
        cls: the TFX class.
        uri: location of the content in the task.
    """
    artifact = cls()
    artifact.uri = uri
    declared = artifact.artifact_type.properties
    for key, value in kfp.metadata.items():
        if key in (TYPE, NODE, URI) or key in _ADDED_BY_KFP or value is None:
            continue
        if key in declared:
            if declared[key] == metadata_store_pb2.INT:
                setattr(artifact, key, int(value))
            elif declared[key] == metadata_store_pb2.DOUBLE:
                setattr(artifact, key, float(value))
            else:
                setattr(artifact, key, _text(value))
        elif isinstance(value, bool | int) or (isinstance(value, float) and value.is_integer()):
            artifact.set_int_custom_property(key, int(value))
        elif isinstance(value, float):
            artifact.set_float_custom_property(key, value)
        elif isinstance(value, str) and value.startswith(_JSON):
            artifact.set_json_value_custom_property(key, json.loads(value.removeprefix(_JSON)))
        else:
            artifact.set_string_custom_property(key, _text(value))
    return artifact


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def to_kfp(mlmd: Any, kfp: Any, cls: type[tfx_artifact.Artifact]) -> None:
    """Copies the properties of a finished TFX artifact (an ML Metadata `Artifact`) to the KFP artifact."""
    for properties in (mlmd.properties, mlmd.custom_properties):
        for key, value in properties.items():
            kind = value.WhichOneof("value")
            if kind is None or key == _ID:
                continue
            if kind in ("string_value", "int_value", "double_value"):
                kfp.metadata[key] = getattr(value, kind)
            elif kind == "bool_value":
                kfp.metadata[key] = int(value.bool_value)
            elif kind == "struct_value":
                # TFX wraps values other than mappings in `__value__`.
                content = json_format.MessageToDict(value.struct_value)
                kfp.metadata[key] = _JSON + json.dumps(content.get("__value__", content))
            else:
                kfp.metadata[key] = _JSON + json.dumps(json_format.MessageToDict(getattr(value, kind)))
    kfp.metadata[TYPE] = cls.TYPE_NAME


def present(path: str, cls: type[tfx_artifact.Artifact]) -> str:
    """Returns the path of an input; creates empty folders, which object stores do not keep."""
    if "://" not in path and not os.path.exists(path) and not hasattr(cls, "decode"):
        os.makedirs(path)
    return path
