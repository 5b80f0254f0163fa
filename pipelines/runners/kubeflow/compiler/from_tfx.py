"""Converts TFX's intermediate representation to the plan. Nodes that Kubeflow Pipelines cannot run raise CompileError."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import json_format
from tfx.dsl.compiler import compiler, placeholder_utils
from tfx.dsl.components.base import base_node, executor_spec
from tfx.orchestration.local import runner_utils
from tfx.orchestration.pipeline import Pipeline
from tfx.types import artifact as tfx_artifact
from tfx.utils import import_utils

from switchyard.pipelines.runners.kubeflow.carried_files import Carried, packed
from switchyard.pipelines.runners.kubeflow.compiler.container_command import container_spec
from switchyard.pipelines.runners.kubeflow.compiler.plan import (
    CompileError,
    Condition,
    ExecProperty,
    IdentifierAllocator,
    InputArtifact,
    OutputArtifact,
    PipelineParameter,
    Plan,
    Task,
    View,
    check_conditions,
    check_importable,
    check_names,
    snake,
)
from switchyard.pipelines.runners.kubeflow.contract import NODE, TYPE
from switchyard.pipelines.runners.kubeflow.task.views import VIEWS
from switchyard.stages import public_path

# In bytes; the backend rejects longer parameters.
_LONGEST_PARAMETER = 10_000
_KINDS = {"string_value": "str", "int_value": "int", "double_value": "float"}
_RUNTIME_KINDS = {1: "int", 2: "float", 3: "str"}
_RUN_ID = "pipeline-run-id"


def to_plan(pipeline: Pipeline, carried: Carried, *, views: bool) -> Plan:
    """Returns the plan of a pipeline.

    Raises:
        CompileError: a node cannot run on Kubeflow Pipelines; the message names it and the reason.
    """
    return _Planner(pipeline, carried, views=views).plan()


class _Planner:
    def __init__(self, pipeline: Pipeline, carried: Carried, *, views: bool) -> None:
        self._pipeline, self._carried, self._views = pipeline, carried, views
        for component in pipeline.components:
            if isinstance(component, Pipeline):
                raise CompileError(component.id, "nested pipelines are not supported; put the nodes into the outer pipeline")
        self._ir = compiler.Compiler().compile(pipeline)
        self._deployment = runner_utils.extract_local_deployment_config(self._ir)
        self._components: dict[str, base_node.BaseNode] = {c.id: c for c in pipeline.components}
        self._functions = IdentifierAllocator(taken=("pipeline", "apply_defaults", "dsl", "kubernetes", "image"))
        self._conditions: dict[str, Condition] = {}
        self._parameters: dict[str, PipelineParameter] = {}

    def plan(self) -> Plan:
        nodes = [n.pipeline_node for n in self._ir.nodes]
        tasks = [self._task(node) for node in nodes]
        check_names(tasks)
        check_conditions({t.id: t for t in tasks}, self._conditions)
        return Plan(self._pipeline.pipeline_info.pipeline_name, tasks, self._conditions, list(self._parameters.values()))

    def _task(self, node: Any) -> Task:
        name, kind = node.node_info.id, node.node_info.type.name
        if kind.endswith("importer.Importer"):
            return self._importer(node)
        if kind.endswith("resolver.Resolver"):
            raise CompileError(
                name,
                (
                    "a Resolver queries ML Metadata, which tasks cannot reach. Query the source in an ordinary component "
                    "(Switchyard's `baseline` stage queries MLflow's registry), or use an Importer for a fixed artifact"
                ),
            )
        spec = runner_utils.extract_executor_spec(self._deployment, name)
        if spec is None:
            raise CompileError(name, f"it has no executor ({kind})")
        function = self._functions.allocate(name)
        arguments = IdentifierAllocator(taken=("driver_output", "workspace"))
        groups, inputs = self._inputs(node, arguments)
        outputs = self._outputs(node, arguments)
        packs = type(spec).__name__ != "ContainerExecutableSpec"
        properties, dynamic, schemas, files = self._properties(node, arguments, packs=packs)
        groups, inputs = _needed(groups, inputs, node, dynamic)
        common: dict[str, Any] = {
            "id": name,
            "function": function,
            "inputs": inputs,
            "outputs": outputs,
            "properties": properties,
            "groups": groups,
            "conditions": self._conditions_of(node),
            "cached": node.execution_options.caching_options.enable_cache,
            "files": files,
        }
        fed = {i.producer for i in inputs}
        common["after"] = [u for u in node.upstream_nodes if u not in fed]
        if type(spec).__name__ == "ContainerExecutableSpec":
            return Task(kind="container", spec=container_spec(name, spec, common), **common)
        details: dict[str, Any] = {
            "id": name,
        }
        executor = _message(spec)
        check_importable(name, str(executor["spec"]))
        driver = runner_utils.extract_custom_driver_spec(self._deployment, name)
        types = self._types(node, groups)
        component = self._components[name]
        own = _declared_types(component) if driver is None else {}
        # Leave out values that the task can read from the component's class.
        details |= {"component": public_path(_path(type(component)))} if own else {}
        details |= _executor(component, executor) if own else {"executor": executor}
        if others := {key: public_path(path) for key, path in types.items() if own.get(key) != path}:
            details["types"] = others
        if driver is not None:
            details["driver"] = _message(driver)
        if dynamic:
            details["dynamic"] = dynamic
        if schemas:
            details["schemas"] = schemas
        return Task(
            kind="python",
            spec=details,
            views=self._views_of(outputs, types, arguments),
            driver=driver is not None,
            **common,
        )

    def _importer(self, node: Any) -> Task:
        name = node.node_info.id
        given = {k: _value(v.field_value) for k, v in node.parameters.parameters.items() if v.HasField("field_value")}
        key = str(given["output_key"])
        spec = node.outputs.outputs[key].artifact_spec
        metadata = {
            k: _value(v.field_value)
            for properties in (spec.additional_properties, spec.additional_custom_properties)
            for k, v in properties.items()
        }
        cls = self._components[name].outputs[key].type
        uri, files = self._carried.replaced(str(given["artifact_uri"]), name)
        if files:
            raise CompileError(
                name, f"{given['artifact_uri']} is a folder on this machine; use a URI that tasks can read (gs://, s3://)"
            )
        return Task(
            id=name,
            function=self._functions.allocate(name),
            kind="importer",
            spec={"uri": uri, "reimport": bool(given["reimport"]), "metadata": {**metadata, TYPE: cls.TYPE_NAME, NODE: name}},
            outputs=[OutputArtifact(key, "artifact", _kfp_type(cls))],
            conditions=self._conditions_of(node),
            after=list(node.upstream_nodes),
        )

    def _inputs(self, node: Any, arguments: IdentifierAllocator) -> tuple[dict[str, list[str]], list[InputArtifact]]:
        found: dict[tuple[str, str], InputArtifact] = {}
        groups: dict[str, list[str]] = {}
        specs = node.inputs.inputs
        for key in sorted(specs, key=lambda k: (k.startswith("_"), k)):
            spec = specs[key]
            if spec.HasField("input_graph_ref"):
                raise CompileError(
                    node.node_info.id,
                    f"input {key!r} is selected by a resolver function, which queries ML Metadata; see Resolver",
                )
            for channel in _channels(node, key):
                where = (channel.producer_node_query.id, channel.output_key)
                if where[0] not in self._components:
                    raise CompileError(node.node_info.id, f"input {key!r} comes from another pipeline")
                if where not in found:
                    cls = self._components[where[0]].outputs[where[1]].type
                    found[where] = InputArtifact(arguments.allocate(key), _kfp_type(cls), *where)
                groups.setdefault(key, []).append(found[where].argument)
        return groups, list(found.values())

    def _outputs(self, node: Any, arguments: IdentifierAllocator) -> list[OutputArtifact]:
        component = self._components[node.node_info.id]
        return [
            OutputArtifact(key, arguments.allocate(key), _kfp_type(component.outputs[key].type))
            for key in sorted(node.outputs.outputs)
        ]

    def _views_of(self, outputs: list[OutputArtifact], types: Mapping[str, str], arguments: IdentifierAllocator) -> list[View]:
        if not self._views:
            return []
        return [
            View(output.key, arguments.allocate(f"{output.key}_{suffix}"), kfp_type)
            for output in outputs
            for suffix, (kfp_type, _) in VIEWS.get(types[output.key].rpartition(".")[2], {}).items()
        ]

    def _types(self, node: Any, groups: Mapping[str, list[str]]) -> dict[str, str]:
        name = node.node_info.id
        component = self._components[name]
        found = {key: _class_path(name, component.outputs[key].type) for key in sorted(node.outputs.outputs)}
        for key in groups:
            channel = next(_channels(node, key))
            cls = self._components[channel.producer_node_query.id].outputs[channel.output_key].type
            found[key] = _class_path(name, cls)
        return found

    def _properties(
        self, node: Any, arguments: IdentifierAllocator, *, packs: bool
    ) -> tuple[list[ExecProperty], dict[str, Any], dict[str, Any], set[str]]:
        name = node.node_info.id
        properties, dynamic, schemas = [], {}, {}
        files: set[str] = set()
        for key, value in sorted(node.parameters.parameters.items()):
            which = value.WhichOneof("value")
            if value.HasField("schema"):
                schemas[key] = json_format.MessageToDict(value.schema)
            if which == "placeholder":
                dynamic[key] = json_format.MessageToDict(value.placeholder)
            elif which == "runtime_parameter":
                parameter = self._parameter(name, value.runtime_parameter)
                properties.append(ExecProperty(key, arguments.allocate(key), parameter.kind, None, parameter.name))
            else:
                kind = value.field_value.WhichOneof("value")
                if kind not in _KINDS:
                    raise CompileError(
                        name, f"exec property {key!r} is a {kind}; allowed: text, integers, floats and lists of them"
                    )
                constant = _value(value.field_value)
                if isinstance(constant, str):
                    constant, used = self._carried.replaced(constant, name)
                    files |= used
                    constant = packed(constant) if packs else constant
                    if len(constant.encode()) > _LONGEST_PARAMETER:
                        raise CompileError(
                            name,
                            (
                                f"exec property {key!r} is {len(constant.encode()):,} bytes long, the backend's limit is "
                                f"{_LONGEST_PARAMETER:,}; put it into a file or into the image"
                            ),
                        )
                properties.append(ExecProperty(key, arguments.allocate(key), _KINDS[kind], constant))
        return properties, dynamic, schemas, files

    def _parameter(self, node: str, given: Any) -> PipelineParameter:
        kind = _RUNTIME_KINDS.get(given.type)
        if kind is None:
            raise CompileError(node, f"runtime parameter {given.name!r} has a type that pipelines do not support")
        default = _value(given.default_value) if given.HasField("default_value") else None
        found = PipelineParameter(snake(given.name), kind, default)
        before = self._parameters.setdefault(found.name, found)
        if before != found:
            raise CompileError(
                node, f"runtime parameter {given.name!r} has another type or default than elsewhere in the pipeline"
            )
        return found

    def _conditions_of(self, node: Any) -> tuple[str, ...]:
        ids = sorted(node.inputs.conditionals, key=lambda c: int(c.rpartition("_")[2]) if c.rpartition("_")[2].isdigit() else 0)
        for condition in ids:
            if condition not in self._conditions:
                self._conditions[condition] = self._condition(node, condition)
        return tuple(ids)

    def _condition(self, node: Any, condition: str) -> Condition:
        expression = node.inputs.conditionals[condition].placeholder_expression
        message = json_format.MessageToDict(expression)
        arguments = IdentifierAllocator()
        groups, inputs = self._inputs(node, arguments)
        used = set(_placeholder_keys(message))
        groups = {k: v for k, v in groups.items() if k in used}
        kept = {a for names in groups.values() for a in names}
        return Condition(
            id=condition,
            function=self._functions.allocate(condition),
            spec={"id": condition, "predicate": message, "types": self._types_of_groups(node, groups)},
            inputs=[i for i in inputs if i.argument in kept],
            groups=groups,
            text=placeholder_utils.debug_str(expression),
        )

    def _types_of_groups(self, node: Any, groups: Mapping[str, list[str]]) -> dict[str, str]:
        component = self._components[node.node_info.id]
        types = self._types(node, groups)
        return {k: v for k, v in types.items() if k in groups or k not in component.outputs}


def _channels(node: Any, key: str) -> Iterator[Any]:
    spec = node.inputs.inputs[key]
    if spec.HasField("mixed_inputs"):
        for inner in spec.mixed_inputs.input_keys:
            yield from _channels(node, inner)
    yield from spec.channels


def _needed(
    groups: Mapping[str, list[str]], inputs: list[InputArtifact], node: Any, dynamic: Mapping[str, Any]
) -> tuple[dict[str, list[str]], list[InputArtifact]]:
    """Removes hidden inputs that are used only by conditions and unions, which are handled elsewhere."""
    used = set(_placeholder_keys(dynamic))
    kept = {k: v for k, v in groups.items() if (not node.inputs.inputs[k].hidden and not k.startswith("_")) or k in used}
    arguments = {a for names in kept.values() for a in names}
    return kept, [i for i in inputs if i.argument in arguments]


def _placeholder_keys(message: Any) -> Iterator[str]:
    if isinstance(message, dict):
        for key, value in message.items():
            if key == "placeholder" and isinstance(value, dict) and "key" in value:
                yield value["key"]
            yield from _placeholder_keys(value)
    elif isinstance(message, list):
        for value in message:
            yield from _placeholder_keys(value)


def _message(message: Any) -> dict[str, Any]:
    spec = json_format.MessageToDict(message)
    if spec.get("beamPipelineArgsPlaceholders"):
        # A duplicate that TFX's operators do not read.
        spec.pop("beamPipelineArgs", None)
    for owner in (spec, spec.get("pythonExecutorSpec", {})):
        if "classPath" in owner:
            owner["classPath"] = public_path(owner["classPath"])
    return {"kind": type(message).__name__, "spec": spec}


def _executor(component: base_node.BaseNode, executor: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the executor settings not declared by the component's class: none, `beam` arguments, or the whole executor."""
    declared: Any = getattr(type(component), "EXECUTOR_SPEC", None)
    if type(declared) not in (executor_spec.ExecutorClassSpec, executor_spec.BeamExecutorSpec):
        return {"executor": executor}
    if type(declared) is executor_spec.ExecutorClassSpec:
        return {} if executor == _message(declared.encode()) else {"executor": executor}
    given = executor["spec"].get("beamPipelineArgsPlaceholders", [])
    beam = [a["value"]["stringValue"] for a in given if list(a.get("value", ())) == ["stringValue"]]
    same = declared.copy()
    same.beam_pipeline_args = beam
    return {"beam": beam} if executor == _message(same.encode()) else {"executor": executor}


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value")) if value.WhichOneof("value") else None


def _kfp_type(cls: type[tfx_artifact.Artifact]) -> str:
    annotation = getattr(cls, "TYPE_ANNOTATION", None)
    # The backend rejects type titles other than system.* and google.*; the task's spec has the full type.
    return annotation.__name__ if annotation is not None and annotation.__name__ in ("Dataset", "Model") else "Artifact"


def _declared_types(component: base_node.BaseNode) -> dict[str, str]:
    """Returns key -> class path as declared by the component's class; empty if not importable or keys are ambiguous."""
    cls = type(component)
    try:
        if import_utils.import_class_by_path(_path(cls)) is not cls:
            return {}
        inputs, outputs = cls.SPEC_CLASS.INPUTS, cls.SPEC_CLASS.OUTPUTS
    except (AttributeError, ImportError, ValueError):
        return {}
    if set(inputs) & set(outputs):
        return {}
    return {key: _path(channel.type) for key, channel in {**inputs, **outputs}.items()}


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _class_path(node: str, cls: type[tfx_artifact.Artifact]) -> str:
    """Returns the path of an artifact class, or of its nearest base class that tasks can import."""
    for base in cls.__mro__:
        path = f"{base.__module__}.{base.__qualname__}"
        if base.__module__ != "__main__" and issubclass(base, tfx_artifact.Artifact) and getattr(base, "TYPE_NAME", None):
            try:
                if import_utils.import_class_by_path(path) is base:
                    return path
            except (ImportError, AttributeError):
                continue
    raise CompileError(node, f"artifact type {cls.__qualname__} is defined in a script; move it to a module in the image")
