"""One TFX node inside a task: converts its artifacts and exec properties, runs its driver and its executor."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import placeholder_utils
from tfx.dsl.components.base import base_driver
from tfx.orchestration import data_types_utils
from tfx.orchestration.portable import data_types, outputs_utils
from tfx.orchestration.portable.python_driver_operator import PythonDriverOperator
from tfx.orchestration.portable.python_executor_operator import PythonExecutorOperator
from tfx.proto.orchestration import executable_spec_pb2, pipeline_pb2, placeholder_pb2
from tfx.types import artifact as tfx_artifact
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.value_artifact import ValueArtifact
from tfx.utils import import_utils

from switchyard.components.errors import StageError
from switchyard.components.pages.artifacts import track_outputs
from switchyard.components.process.folder_lock import locked_folder
from switchyard.components.progress import say
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.runners.contract import PRODUCER_RUN_ID
from switchyard.pipelines.runners.kubeflow.contract import URI
from switchyard.pipelines.runners.kubeflow.task.artifacts import present, to_kfp, to_tfx
from switchyard.pipelines.runners.kubeflow.task.views import write_views


class NodeRun:
    """A node, ready to run. `key` names the folder of its unfinished work (checkpoints)."""

    def __init__(
        self,
        node: Mapping[str, Any],
        inputs: Mapping[str, Sequence[Any]],
        outputs: Mapping[str, Any],
        properties: Mapping[str, Any],
        *,
        key: str,
    ) -> None:
        self._node, self._outputs, self._key, self._context = node, outputs, key, RunContext.current()
        self._types = classes(node)
        self._inputs = {key: [self._input(a, key) for a in artifacts] for key, artifacts in inputs.items()}
        self._output_dict = {key: [self._output(a, key)] for key, a in outputs.items()}
        self._properties = self._parsed(properties)
        self._finished: dict[str, list[tfx_artifact.Artifact]] = {}

    def drive(self, temporary: str) -> dict[str, Any]:
        """Runs the driver; returns the changed `exec_properties`, and `outputs`: key -> properties set by the driver."""
        # The driver sets properties of outputs; their URIs are not known yet.
        self._output_dict = {key: [self._types[key]()] for key in self._types if key not in self._inputs}
        before = dict(self._properties)
        spec = _spec(self._node["driver"])
        driver = import_utils.import_class_by_path(spec.class_path)
        if issubclass(driver, base_driver.BaseDriver) and not hasattr(driver, "run"):
            raise StageError(f"driver {driver.__name__} needs ML Metadata, which a task cannot reach")
        result = PythonDriverOperator(spec, None).run_driver(self._info(temporary, None))
        changed = {k: data_types_utils.get_metadata_value(v) for k, v in result.exec_properties.items()}
        return {
            "exec_properties": {k: v for k, v in changed.items() if before.get(k) != v},
            "outputs": {
                key: json_format.MessageToDict(_properties_only(artifacts.artifacts[0]))
                for key, artifacts in result.output_artifacts.items()
                if artifacts.artifacts
            },
        }

    def execute(self, temporary: str, state: str | None, driver_output: str) -> None:
        """Runs the executor and copies its results to the outputs."""
        if driver_output:
            self._driven(json.loads(driver_output))
        info = self._info(temporary, state)
        spec = executor_of(self._node)
        if info.pipeline_node.parameters.parameters:
            context = placeholder_utils.ResolutionContext(exec_info=info, executor_spec=spec)
            _hydrate(self._inputs)
            from tfx.orchestration.portable import inputs_utils  # slow: imports every component of TFX

            info.exec_properties.update(inputs_utils.resolve_dynamic_parameters(info.pipeline_node.parameters, context))
        outputs_utils.make_output_dirs(self._output_dict)
        operator = _operator(spec)
        # TFX appends the command line's arguments, which here belong to KFP.
        operator.extra_flags = list(_flags(spec))
        with locked_folder(Path(info.stateful_working_dir), _waits()):
            self._run(operator, info)
            shutil.rmtree(info.stateful_working_dir, ignore_errors=True)

    def _run(self, operator: Any, info: data_types.ExecutionInfo) -> None:
        result = operator.run_executor(info)
        if result.execution_result.code:
            raise StageError(result.execution_result.result_message or "its executor reported a failure")
        for key, artifacts in result.output_artifacts.items():
            if artifacts.artifacts:
                to_kfp(artifacts.artifacts[0], self._outputs[key], self._types[key])
                if self._context.run_id:
                    # A later run that takes the artifact from the cache links to this run.
                    self._outputs[key].metadata[PRODUCER_RUN_ID] = self._context.run_id
                kind = self._types[key]().artifact_type
                self._finished[key] = [artifact_utils.deserialize_artifact(kind, a) for a in artifacts.artifacts]

    def show(self, views: Mapping[str, Any]) -> None:
        """Writes the views for KFP's pages and logs the outputs to MLflow."""
        for key, kfp in self._outputs.items():
            write_views(key, self._types[key].__name__, kfp.path, views)
        track_outputs(self._finished)

    def _input(self, kfp: Any, key: str) -> tfx_artifact.Artifact:
        cls = self._types[key]
        return to_tfx(kfp, cls, kfp.metadata.get(URI) or present(kfp.path, cls))

    def _output(self, kfp: Any, key: str) -> tfx_artifact.Artifact:
        artifact = self._types[key]()
        root = self._context.data_root
        if root and isinstance(artifact, standard_artifacts.Examples):
            # A new path for every attempt, so that partial output is never read.
            parts = (
                root.rstrip("/"),
                self._node["pipeline"],
                self._context.kfp_run_id or "run",
                self._node["id"],
                uuid.uuid4().hex[:8],
            )
            artifact.uri = kfp.metadata[URI] = "/".join((*parts, key))
            # KFP transports this file instead of the data.
            os.makedirs(kfp.path, exist_ok=True)
            with open(os.path.join(kfp.path, "URI"), "w", encoding="utf-8") as file:
                file.write(artifact.uri + "\n")
        else:
            artifact.uri = kfp.path
        return artifact

    def _parsed(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        schemas = self._node.get("schemas", {})
        values = {}
        for key, given in properties.items():
            value = pipeline_pb2.Value()
            data_types_utils.set_metadata_value(value.field_value, given)
            if key in schemas:
                json_format.ParseDict(schemas[key], value.schema)
            values[key] = value
        return dict(data_types_utils.build_parsed_value_dict(values))

    def _driven(self, changed: Mapping[str, Any]) -> None:
        self._properties.update(changed["exec_properties"])
        for key, properties in changed["outputs"].items():
            found = json_format.ParseDict(properties, metadata_store_pb2.Artifact())
            for name, value in found.properties.items():
                self._output_dict[key][0].mlmd_artifact.properties[name].CopyFrom(value)
            for name, value in found.custom_properties.items():
                self._output_dict[key][0].mlmd_artifact.custom_properties[name].CopyFrom(value)

    def _info(self, temporary: str, state: str | None) -> data_types.ExecutionInfo:
        dynamic = {k: {"placeholder": v} for k, v in self._node.get("dynamic", {}).items()}
        node = json_format.ParseDict(
            {"nodeInfo": {"id": self._node["id"]}, "parameters": {"parameters": dynamic}}, pipeline_pb2.PipelineNode()
        )
        folder = os.path.join(state or temporary, f"{self._node['id']}-{self._key}" if state else "state")
        info = data_types.ExecutionInfo(
            execution_id=1,
            input_dict=self._inputs,
            output_dict=self._output_dict,
            exec_properties=self._properties,
            execution_output_uri=os.path.join(temporary, "executor_output.pb"),
            stateful_working_dir=folder,
            tmp_dir=os.path.join(temporary, "tmp"),
            pipeline_node=node,
            pipeline_info=pipeline_pb2.PipelineInfo(id=self._node["pipeline"]),
            pipeline_run_id=self._context.kfp_run_id or "run",
        )
        os.makedirs(info.stateful_working_dir, exist_ok=True)
        os.makedirs(info.tmp_dir, exist_ok=True)
        return info


def _waits() -> Callable[[], None]:
    """Returns a function that says once that another task does the same work."""
    return cache(lambda: say("waits for another task with the same inputs and settings, which uses the same folder"))


def holds(node: Mapping[str, Any], inputs: Mapping[str, Sequence[Any]]) -> bool:
    """Returns whether the predicate of a condition is true for its inputs."""
    types = classes(node)
    artifacts = {key: [to_tfx(a, types[key], present(a.path, types[key])) for a in found] for key, found in inputs.items()}
    _hydrate(artifacts)
    info = data_types.ExecutionInfo(input_dict=artifacts, output_dict={}, exec_properties={})
    expression = json_format.ParseDict(node["predicate"], placeholder_pb2.PlaceholderExpression())
    return bool(placeholder_utils.resolve_placeholder_expression(expression, placeholder_utils.ResolutionContext(exec_info=info)))


def classes(node: Mapping[str, Any]) -> dict[str, type[tfx_artifact.Artifact]]:
    """Returns the artifact classes of a node's inputs and outputs: its `types`, else those declared by its component."""
    found: dict[str, type[tfx_artifact.Artifact]] = {}
    if "component" in node:
        spec = import_utils.import_class_by_path(node["component"]).SPEC_CLASS
        found = {key: channel.type for key, channel in {**spec.INPUTS, **spec.OUTPUTS}.items()}
    return found | {key: import_utils.import_class_by_path(path) for key, path in node.get("types", {}).items()}


def executor_of(node: Mapping[str, Any]) -> Any:
    """Returns TFX's message for a node's executor: its `executor`, else its component's with the arguments in `beam`."""
    if "executor" in node:
        return _spec(node["executor"])
    declared = import_utils.import_class_by_path(node["component"]).EXECUTOR_SPEC.copy()
    if "beam" in node:
        declared.beam_pipeline_args = list(node["beam"])
    return declared.encode()


def _hydrate(artifacts: Mapping[str, Sequence[tfx_artifact.Artifact]]) -> None:
    for found in artifacts.values():
        for artifact in found:
            if isinstance(artifact, ValueArtifact):
                artifact.read()


def _spec(given: Mapping[str, Any]) -> Any:
    return json_format.ParseDict(given["spec"], getattr(executable_spec_pb2, given["kind"])())


def _operator(spec: Any) -> Any:
    """Returns the operator for an executor. TFX's launcher maps it too, but imports every component: half of all modules."""
    if isinstance(spec, executable_spec_pb2.BeamExecutableSpec):
        from tfx.orchestration.portable.beam_executor_operator import BeamExecutorOperator

        return BeamExecutorOperator(spec)
    return PythonExecutorOperator(spec)


def _flags(spec: Any) -> Sequence[str]:
    return list((spec.python_executor_spec if hasattr(spec, "python_executor_spec") else spec).extra_flags)


def _properties_only(artifact: Any) -> Any:
    kept = metadata_store_pb2.Artifact()
    for name, value in artifact.properties.items():
        kept.properties[name].CopyFrom(value)
    for name, value in artifact.custom_properties.items():
        kept.custom_properties[name].CopyFrom(value)
    return kept
