"""Runs a stage in a child process: TFX's executor on the runner's prepared invocation, then the artifacts' pages."""

from __future__ import annotations

from typing import Any

from tfx.orchestration.portable import beam_executor_operator, data_types, python_executor_operator
from tfx.proto.orchestration import executable_spec_pb2, execution_invocation_pb2
from tfx.types import artifact_utils

from switchyard.components.pages.artifacts import track_outputs
from switchyard.components.text.redaction import names_a_secret, remember
from switchyard.components.tracking import run as tracking

OPERATORS = {
    "PythonClassExecutableSpec": python_executor_operator.PythonExecutorOperator,
    "BeamExecutableSpec": beam_executor_operator.BeamExecutorOperator,
}


def run_executor(payload: tuple[str, bytes, bytes]) -> bytes:
    """Runs an executor and logs its outputs to MLflow.

    Args:
        payload: message name of the executable spec, the serialized spec, the serialized `ExecutionInvocation`.

    Returns:
        The serialized `ExecutorOutput`.
    """
    kind, spec_bytes, invocation = payload
    spec = getattr(executable_spec_pb2, kind).FromString(spec_bytes)
    _remember_secrets(spec)
    info = data_types.ExecutionInfo.from_proto(execution_invocation_pb2.ExecutionInvocation.FromString(invocation))
    monitor = tracking.watch_system()
    try:
        output = OPERATORS[kind](spec).run_executor(info)
    finally:
        if monitor:
            monitor.finish()
    if output.execution_result.code == 0:
        track_outputs(_finished(info, output))
    return bytes(output.SerializeToString())


def _remember_secrets(spec: Any) -> None:
    """Registers secret Beam options for redaction, as Beam logs its options."""
    for argument in getattr(spec, "beam_pipeline_args_placeholders", ()):
        name, _, value = argument.value.string_value.lstrip("-").partition("=")
        if names_a_secret(name):
            remember(value)


def _finished(info: data_types.ExecutionInfo, output: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for key, artifacts in info.output_dict.items():
        reported = output.output_artifacts[key].artifacts if key in output.output_artifacts else []
        types = [a.artifact_type for a in artifacts]
        found[key] = [artifact_utils.deserialize_artifact(t, a) for t, a in zip(types, reported, strict=False)]
    return found
