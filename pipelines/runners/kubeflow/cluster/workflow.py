"""A run's Argo Workflow from KFP's v1beta1 API: node states and messages, also where v2beta1's states are frozen.

Argo compresses the states above 1 MiB, and v2beta1 shows no later states.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from switchyard.pipelines.runners.kubeflow.compiler.plan import stages_of, task_name
from switchyard.pipelines.runners.kubeflow.task.failure import read_last_words

_EXIT = re.compile(r"^(main|wait): Error \(exit code \d+\)(: )?")
# Messages of Argo and Kubernetes on a pod that was evicted or deleted, as opposed to one that failed.
_LOST = re.compile(
    r"pod deleted|evicted|preempt|node was low on resource|node shutdown|node is not ready|taint manager|DeletionByPodGC", re.I
)
# etcd, in which Kubernetes stores a Workflow, takes objects of 1.5 MiB.
_TOO_LARGE = "request is too large"
# Kubernetes' whole message on a pod while it pulls the image, and also while it waits for what it cannot mount.
_SILENT = ("PodInitializing", "ContainerCreating")
_STATES = {"Succeeded": "SUCCEEDED", "Failed": "FAILED", "Error": "FAILED", "Running": "RUNNING", "Pending": "PENDING"}


@dataclass(frozen=True)
class StageState:
    """State of a stage.

    Attributes:
        state: KFP's state; SKIPPED when the outputs were taken from the cache; NOT_RUN when the run ended before its start.
        message: why the stage waits or failed.
        seconds: duration; None while it runs.
        exit_code: exit code before KFP's launcher replaced it with 1; None when the message has none.
        failed: the failed stage of a joint task; empty when the message does not name it.
        shared: the stage belongs to a joint task; `seconds` covers all its stages.
    """

    state: str
    message: str = ""
    seconds: float | None = None
    exit_code: int | None = None
    failed: str = ""
    shared: bool = False

    def of_each(self, task_id: str) -> dict[str, StageState]:
        """Returns the states of a task's stages: those before the failed one have succeeded, those after it never ran.

        If the failed stage is unknown (the pod was killed), all stages are returned as failed, with a message that lists them.
        """
        stages = stages_of(task_id)
        if len(stages) == 1:
            return {stages[0]: self}
        shared = replace(self, shared=True)
        if self.state != "FAILED":
            return dict.fromkeys(stages, shared)
        names = [task_name(s) for s in stages]
        if task_name(self.failed) not in names:
            said = f"one of {', '.join(stages)}: {self.message or 'failed'}"
            return dict.fromkeys(stages, replace(shared, message=said))
        number = names.index(task_name(self.failed))
        done = StageState("SUCCEEDED", seconds=self.seconds, shared=True)
        return {**dict.fromkeys(stages[:number], done), stages[number]: shared}


@dataclass(frozen=True)
class Node:
    """A node of the Workflow: a pod, or a group of nodes."""

    id: str
    name: str
    kind: str
    phase: str
    message: str
    template: str
    parent: str
    started: str
    finished: str

    @property
    def lost(self) -> bool:
        """Whether its pod was removed while running: by a drained node, an eviction or a deletion."""
        # A stage's own message may contain such words, for example in a column's name.
        said = read_last_words(self.message) is not None
        return self.phase in ("Error", "Failed") and not said and bool(_LOST.search(self.message))

    @property
    def seconds(self) -> float | None:
        """Duration; 0 when clock differences make it negative; None when a time is missing."""
        try:
            taken = (datetime.fromisoformat(self.finished) - datetime.fromisoformat(self.started)).total_seconds()
        except (ValueError, TypeError):
            return None
        return max(taken, 0.0)


class Workflow:
    """The nodes of a run.

    Args:
        manifest: Argo's Workflow as stored by KFP.
    """

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        status = manifest.get("status") or {}
        self.compressed = bool(status.get("compressedNodes"))
        nodes = status.get("nodes") or {}
        if self.compressed:
            nodes = json.loads(gzip.decompress(base64.b64decode(status["compressedNodes"])))
        self.name = str((manifest.get("metadata") or {}).get("name", ""))
        self.namespace = str((manifest.get("metadata") or {}).get("namespace", ""))
        self.nodes = {key: _node(key, value) for key, value in nodes.items()}
        self._nodes = nodes
        self._message = str(status.get("message") or "")

    @property
    def error(self) -> str:
        """Argo's message on the whole run, such as why it cannot continue; empty without one. KFP passes it on to no client."""
        if _TOO_LARGE not in self._message:
            return _plain(self._message)
        return (
            f"{_plain(self._message)}: the run's Workflow has become larger than Kubernetes stores. Put data where the cluster "
            "reads it (data.path: s3://, gs://; or tracking.uri, with which submit uploads it) and code into the image"
        )

    def stages(self, tasks: Mapping[str, str]) -> dict[str, StageState]:
        """Returns stage -> its state, for the stages that have started.

        Args:
            tasks: name of the KFP task -> stage; for a joint task, its stages separated by commas.
        """
        found: dict[str, StageState] = {}
        for node in self.nodes.values():
            task = node.name.removesuffix("-driver")
            if node.name in tasks and node.phase != "Omitted":
                found[tasks[node.name]] = self._state(node)
            elif node.name != task and task in tasks and tasks[task] not in found:
                # Only its driver has started: the task is pending, or failed if the driver failed.
                state = "FAILED" if node.phase in ("Failed", "Error") else "PENDING"
                found[tasks[task]] = StageState(state, _plain(node.message))
        return {stage: state for task, whole in found.items() for stage, state in whole.of_each(task).items()}

    def task_names(self) -> list[str]:
        """Returns the names of the tasks that have started."""
        return [
            n.name.removesuffix("-driver") for n in self.nodes.values() if n.name.endswith("-driver") and n.name != "root-driver"
        ]

    def executors(self, task: str) -> list[Node]:
        """Returns the pods that run a task, one per attempt, in order of their start."""
        found = [n for dag in self._named(task) for n in self._below(dag.id) if n.kind == "Pod"]
        found += [n for n in self._named(task) if n.kind == "Pod"]
        return sorted(found, key=lambda n: (n.started, n.name))

    def pod_name(self, node: Node) -> str:
        """Returns the name of a node's pod in Kubernetes."""
        return f"{self.name}-{node.template}-{node.id.rpartition('-')[2]}"

    def archived_log(self, node: Node) -> str | None:
        """Returns the URI at which KFP's launcher stores the log of a pod that ended; None where KFP does not publish logs.

        The driver passes it to the executor's pod, and the launcher appends the number of the attempt:
        https://github.com/kubeflow/pipelines/blob/2.17.0/backend/src/v2/component/launcher_v2.go
        """
        given = (self._nodes[node.id].get("inputs") or {}).get("parameters") or []
        patch = next((str(p.get("value")) for p in given if p.get("name") == "pod-spec-patch"), "")
        try:
            words = [w for c in json.loads(patch)["containers"] for w in (*c.get("command", ()), *c.get("args", ()))]
            outputs = json.loads(words[words.index("--executor_input") + 1])["outputs"]["artifacts"]
            uri = str(outputs["executor-logs"]["artifacts"][0]["uri"])
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        attempt = re.search(r"\((\d+)\)$", node.name)
        return f"{uri}-{attempt[1] if attempt else 0}"

    def only_lost(self) -> list[str]:
        """Returns the tasks whose pods were lost, if the run failed for no other reason; else an empty list."""
        tries: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            if node.kind == "Pod":
                # Only the last attempt of a retried task counts.
                tries.setdefault(node.parent if node.name.startswith("executor") else node.id, []).append(node)
        last = [max(found, key=lambda n: (n.started, n.name)) for found in tries.values()]
        failed = [n for n in last if n.phase in ("Error", "Failed")]
        return sorted({self._task_of(n) for n in failed}) if failed and all(n.lost for n in failed) else []

    def _state(self, node: Node) -> StageState:
        pods = [n for n in self._below(node.id) if n.kind != "Retry"] or [node]
        last = max(pods, key=lambda n: (n.started, n.name))
        if last.phase in ("Skipped", "Omitted"):
            return StageState("SKIPPED", "", 0.0)
        state = _STATES.get(node.phase, "RUNNING")
        if state in ("RUNNING", "PENDING"):
            return StageState(_STATES.get(last.phase, "RUNNING") if not last.finished else "RUNNING", self._waiting(last))
        if state != "FAILED":
            return StageState(state, "", node.seconds)
        said = _plain(last.message)
        if read := read_last_words(said):
            failure, stage = read
            return StageState(state, failure.message, node.seconds, failure.exit_code, stage)
        return StageState(state, said, node.seconds)

    def _waiting(self, node: Node) -> str:
        said = _plain(node.message)
        if said not in _SILENT:
            return said
        namespace = f" -n {self.namespace}" if self.namespace else ""
        return (
            f"{said}: its image is being pulled, or a secret or claim that it mounts is missing; see kubectl describe pod"
            f"{namespace} {self.pod_name(node)}"
        )

    def _named(self, task: str) -> list[Node]:
        return [n for n in self.nodes.values() if n.name == task]

    def _below(self, node_id: str) -> Iterator[Node]:
        for node in self.nodes.values():
            if node.parent == node_id:
                yield node

    def _task_of(self, node: Node) -> str:
        above = self.nodes.get(node.parent)
        return above.name if above and node.name.startswith("executor") else node.name.removesuffix("-driver")


def _node(key: str, value: Mapping[str, Any]) -> Node:
    def text(name: str) -> str:
        return str(value.get(name) or "")

    return Node(
        key, text("displayName"), text("type"), text("phase"), text("message"), text("templateName"), text("boundaryID"),
        text("startedAt"), text("finishedAt"),
    )  # fmt: skip


def _plain(message: str) -> str:
    return " ".join(_EXIT.sub("", message).split())
