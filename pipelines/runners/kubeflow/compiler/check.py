"""Strict validation of a compiled pipeline, beyond KFP's own compiler: parses every message and resolves every reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format


def check(spec: Mapping[str, Any]) -> None:
    """Raises ValueError for an invalid spec. This indicates a bug in the compiler, not a user error."""
    complaints = [*_messages(spec), *complaints_of(spec)]
    if spec.get("schemaVersion") != "2.1.0":
        complaints.append(f"schemaVersion is {spec.get('schemaVersion')!r}, not '2.1.0'")
    if complaints:
        raise ValueError("the compiled pipeline is invalid: " + "; ".join(complaints[:5]))


def _messages(spec: Mapping[str, Any]) -> list[str]:
    from kfp.pipeline_spec import pipeline_spec_pb2

    found = []
    try:
        json_format.ParseDict(dict(spec), pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        found.append(f"pipeline spec: {error}")
    for name, executor in spec.get("deploymentSpec", {}).get("executors", {}).items():
        try:
            json_format.ParseDict(executor, pipeline_spec_pb2.PipelineDeploymentConfig.ExecutorSpec())
        except json_format.ParseError as error:
            found.append(f"executor {name}: {error}")
    return found


def complaints_of(spec: Mapping[str, Any]) -> list[str]:
    """Returns the problems of tasks and their references, one sentence each."""
    components = spec.get("components", {})
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    found = []
    for name, component in [("root", spec["root"]), *components.items()]:
        if "dag" in component:
            found += _dag(name, component, components)
        elif component.get("executorLabel") not in executors:
            found.append(f"{name}: unknown executor {component.get('executorLabel')!r}")
    return found


def _dag(name: str, component: Mapping[str, Any], components: Mapping[str, Any]) -> list[str]:
    tasks = component["dag"].get("tasks", {})
    found = []
    for task_name, task in tasks.items():
        where = f"{name}/{task_name}"
        definition = components.get(task["componentRef"]["name"])
        if definition is None:
            found.append(f"{where}: unknown component {task['componentRef']['name']!r}")
            continue
        declared = definition.get("inputDefinitions", {})
        for kind in ("artifacts", "parameters"):
            given = task.get("inputs", {}).get(kind, {})
            found += [f"{where}: {k} is not an input" for k in given if k not in declared.get(kind, {})]
            found += [
                f"{where}: input {k} has no value"
                for k, d in declared.get(kind, {}).items()
                if k not in given and not d.get("isOptional") and "defaultValue" not in d
            ]
            for key, value in given.items():
                found += _reference(f"{where}: {key}", value, kind, task, tasks, components, component)
        for other in task.get("dependentTasks", []):
            if other not in tasks:
                found.append(f"{where}: depends on {other!r}, which does not exist")
    return found


def _reference(
    where: str,
    value: Mapping[str, Any],
    kind: str,
    task: Mapping[str, Any],
    tasks: Mapping[str, Any],
    components: Mapping[str, Any],
    component: Mapping[str, Any],
) -> list[str]:
    one = "Artifact" if kind == "artifacts" else "Parameter"
    outer = value.get(f"componentInput{one}")
    if outer is not None and outer not in component.get("inputDefinitions", {}).get(kind, {}):
        return [f"{where}: the pipeline has no input {outer!r}"]
    produced = value.get(f"taskOutput{one}")
    if produced is None:
        return []
    producer = produced["producerTask"]
    if producer not in tasks:
        return [f"{where}: unknown task {producer!r}"]
    found = [] if producer in task.get("dependentTasks", []) else [f"{where}: does not depend on {producer!r}"]
    outputs = components[tasks[producer]["componentRef"]["name"]].get("outputDefinitions", {}).get(kind, {})
    key = produced[f"output{one}Key"]
    return found if key in outputs else [*found, f"{where}: {producer!r} has no output {key!r}"]
