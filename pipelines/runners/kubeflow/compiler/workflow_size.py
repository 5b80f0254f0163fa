"""Estimates the size of a pipeline's Argo Workflow, based on observations on KFP 2.17.0 (tests/kubeflow/README.md).

Every byte of a task's container is stored five times: in the Workflow's arguments, in the driver's input, and in the patch of the
pod's spec, which is the driver's output, the input of the task's DAG and the input of its executor. A task with retries stores
the patch once more. Above 1 MiB Argo compresses the states, and KFP shows no more progress; above etcd's 1.5 MiB the run fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from switchyard.components.errors import UserError

# In bytes: node states, which Argo compresses above 1,048,576, plus arguments, which etcd stores in the same object.
LIMIT = 900_000
# In bytes: what the example takes when its data is uploaded; above it, embedded data is worth a message.
SMALL = 300_000
# In bytes: an artifact in an executor's input (URI, type, metadata), the launcher's arguments, a node's state besides its inputs.
_ARTIFACT, _LAUNCHER, _NODE = 560, 1_100, 900
# Growth of text that is nested twice in a JSON document: quotes and their backslashes are escaped again.
_NESTED = 1.3


@dataclass(frozen=True)
class WorkflowSize:
    """An estimate in bytes.

    Attributes:
        nodes: states of all nodes after they have run.
        arguments: the Workflow's arguments.
        tasks: task -> its share of the states.
    """

    nodes: int
    arguments: int
    tasks: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of the states and the arguments together."""
        return self.nodes + self.arguments

    def check(self) -> None:
        """Raises UserError, naming the largest tasks, when KFP would lose the progress of a run, or the run."""
        if self.total <= LIMIT:
            return
        sizes = sorted(self.tasks.items(), key=lambda t: -t[1])[:3]
        largest = ", ".join(f"{name} ({size:,})" for name, size in sizes)
        raise UserError(
            "the pipeline is too large for Kubeflow Pipelines: its Workflow would be about "
            f"{self.total:,} bytes (its tasks' states {self.nodes:,}), and above "
            f"{LIMIT:,} a cluster may lose the run. Largest: {largest}. Put data where the cluster can read it (data.path: "
            "s3://, gs:// or a claim; with tracking.uri, submit uploads it to MLflow) and large code into the image "
            "(kubeflow.image), or train fewer models in one pipeline."
        )


def workflow_size(spec: Mapping[str, Any], platform: Mapping[str, Any] | None) -> WorkflowSize:
    """Estimates the Workflow's size for a compiled pipeline: arguments and node states after all stages have run."""
    executors = spec["deploymentSpec"]["executors"]
    kubernetes = (platform or {}).get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    nodes: dict[str, int] = {}
    arguments = _text(spec["root"])
    for name, task, component in _tasks(spec):
        label = component.get("executorLabel", "")
        container, config = executors.get(label, {}).get("container", {}), kubernetes.get(label, {})
        # Stored both in the driver's input and in the Workflow's arguments.
        shared = _text(container) + _text(component) + _text(config)
        nodes[name] = nodes.get(name, 0) + shared + _text(task) + _patches(task, component, container)
        arguments += shared
    return WorkflowSize(sum(nodes.values()) + _text(spec["root"]), arguments, nodes)


def _patches(task: Mapping[str, Any], component: Mapping[str, Any], container: Mapping[str, Any]) -> int:
    constants = [p["runtimeValue"] for p in task.get("inputs", {}).get("parameters", {}).values() if "runtimeValue" in p]
    artifacts = [a for kind in ("inputDefinitions", "outputDefinitions") for a in component.get(kind, {}).get("artifacts", {})]
    executor_input = _NESTED * sum(map(_text, constants)) + _ARTIFACT * len(artifacts)
    patch = _text(container) + _NESTED * _text(component) + executor_input + _LAUNCHER
    copies = 4 if task.get("retryPolicy") else 3
    return round(copies * patch + (copies + 1) * _NODE)


def _tasks(spec: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    components = spec["components"]
    for dag in [spec["root"], *(c for c in components.values() if "dag" in c)]:
        for name, task in dag["dag"]["tasks"].items():
            yield name, task, components[task["componentRef"]["name"]]


def _text(value: Any) -> int:
    """Returns the length of a value's JSON as text in a JSON document."""
    return len(json.dumps(json.dumps(value)))
