"""The messages of the Open Inference Protocol's gRPC service, version 2, as Triton's, KServe's and MLServer's clients send them.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto

They are made here and in a pool of their own, instead of by generated code, which would need one version of protobuf and exclude
every client library in the same process, as all of these register the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
# Message -> its fields, numbered in this order from 1: type and name, `*` after the type of a repeated one. A `map` is one to
# InferParameter.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready",
    "ModelReadyRequest": "string name, string version",
    "ModelReadyResponse": "bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name, string version, string* extensions",
    "ModelMetadataRequest": "string name, string version",
    # The parameters are an extension of MLServer's.
    "TensorMetadata": "string name, string datatype, int64* shape, map parameters",
    "ModelMetadataResponse": "string name, string* versions, string platform, TensorMetadata* inputs, TensorMetadata* outputs",
    "InferParameter": "bool bool_param, int64 int64_param, string string_param, double double_param, uint64 uint64_param",
    "InferTensorContents": "bool* bool_contents, int32* int_contents, int64* int64_contents, uint32* uint_contents, "
    "uint64* uint64_contents, float* fp32_contents, double* fp64_contents, bytes* bytes_contents",
    "InferInputTensor": "string name, string datatype, int64* shape, map parameters, InferTensorContents contents",
    "InferRequestedOutputTensor": "string name, map parameters",
    "ModelInferRequest": "string model_name, string model_version, string id, map parameters, InferInputTensor* inputs, "
    "InferRequestedOutputTensor* outputs, bytes* raw_input_contents",
    "InferOutputTensor": "string name, string datatype, int64* shape, map parameters, InferTensorContents contents",
    "ModelInferResponse": "string model_name, string model_version, string id, map parameters, InferOutputTensor* outputs, "
    "bytes* raw_output_contents",
}
_ONE_OF = "InferParameter"


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="switchyard/open_inference.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if name == _ONE_OF:
            message.oneof_decl.add(name="parameter_choice")
        for number, field in enumerate(filter(None, fields.split(", ")), start=1):
            kind, field_name = field.split(" ")
            made = message.field.add(name=field_name, number=number)
            made.label = made.LABEL_REPEATED if kind.endswith("*") or kind == "map" else made.LABEL_OPTIONAL
            if name == _ONE_OF:
                made.oneof_index = 0
            _set_type(made, kind.rstrip("*"), name)
            if kind == "map":
                entry = message.nested_type.add(name="ParametersEntry")
                entry.options.map_entry = True
                _set_type(entry.field.add(name="key", number=1, label=made.LABEL_OPTIONAL), "string", name)
                _set_type(entry.field.add(name="value", number=2, label=made.LABEL_OPTIONAL), _ONE_OF, name)
    return file


def _set_type(field: Any, kind: str, message: str) -> None:
    if kind in _MESSAGES or kind == "map":
        field.type = field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{message}.ParametersEntry" if kind == "map" else f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(field, f"TYPE_{kind.upper()}")


def _classes() -> Mapping[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES}


# Name of a message -> its class.
MESSAGES = _classes()


def parameters_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a message's parameters as plain values."""
    return {name: getattr(value, value.WhichOneof("parameter_choice") or "string_param") for name, value in given.items()}


def set_parameters(target: Any, parameters: Mapping[str, Any]) -> None:
    """Sets a message's parameters, texts and booleans."""
    for name, value in parameters.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        else:
            target[name].string_param = str(value)
