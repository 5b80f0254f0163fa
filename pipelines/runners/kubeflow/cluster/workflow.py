"""A run's Argo Workflow, as KFP's v1beta1 API keeps it: the states of its nodes where v2beta1's are frozen, and their messages.

Argo compresses the states above 1 MiB, and v2beta1 shows none that came after that.
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
# What Argo and Kubernetes say of a pod that was taken away, not of one that failed.
_LOST = re.compile(
    r"pod deleted|evicted|preempt|node was low on resource|node shutdown|node is not ready|taint manager|DeletionByPodGC", re.I
)
_STATES = {"Succeeded": "SUCCEEDED", "Failed": "FAILED", "Error": "FAILED", "Running": "RUNNING", "Pending": "PENDING"}


@dataclass(frozen=True)
class StageState:
    """How far a stage is.

    Attributes:
        state: as KFP's; SKIPPED: its outputs were taken from the cache.
        message: why it waits or failed.
        seconds: that it took; None: it runs.
        exit_code: that it ended with before KFP's launcher made 1 of it; None: it did not say.
        failed: which stage it was, of a task that does several; empty: it did not say.
        shared: the task does others too, which its seconds are of as well.
    """

    state: str
    message: str = ""
    seconds: float | None = None
    exit_code: int | None = None
    failed: str = ""
    shared: bool = False

    def of_each(self, task_id: str) -> dict[str, StageState]:
        """Returns the states of a task's stages: those before the one that failed have succeeded, those after it never ran.

        Where the task left no word (its pod was killed), any of them may have failed: all are shown so, and the message says it.
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
    """A node of the Workflow: a pod, or what holds some."""

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
        """Whether its pod was taken away while it ran: by a drained node, an eviction, a deletion."""
        # What a stage itself said last may hold such words, in a column's name, say.
        said = read_last_words(self.message) is not None
        return self.phase in ("Error", "Failed") and not said and bool(_LOST.search(self.message))

    @property
    def seconds(self) -> float | None:
        """How long it took; 0, where the clocks that it was measured by differ by more."""
        try:
            taken = (datetime.fromisoformat(self.finished) - datetime.fromisoformat(self.started)).total_seconds()
        except (ValueError, TypeError):
            return None
        return max(taken, 0.0)


class Workflow:
    """The nodes of a run.

    Args:
        manifest: Argo's Workflow, as KFP keeps it.
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

    def stages(self, tasks: Mapping[str, str]) -> dict[str, StageState]:
        """Returns stage -> its state, of those that have begun.

        Args:
            tasks: name of the KFP task -> stage; of one that does several: those, with commas between.
        """
        found: dict[str, StageState] = {}
        for node in self.nodes.values():
            task = node.name.removesuffix("-driver")
            if node.name in tasks and node.phase != "Omitted":
                found[tasks[node.name]] = self._state(node)
            elif node.name != task and task in tasks and tasks[task] not in found:
                # Its driver has run, or runs; it has failed only if the driver has.
                state = "FAILED" if node.phase in ("Failed", "Error") else "PENDING"
                found[tasks[task]] = StageState(state, _plain(node.message))
        return {stage: state for task, whole in found.items() for stage, state in whole.of_each(task).items()}

    def task_names(self) -> list[str]:
        """Returns the names of the tasks that have begun."""
        return [
            n.name.removesuffix("-driver") for n in self.nodes.values() if n.name.endswith("-driver") and n.name != "root-driver"
        ]

    def executors(self, task: str) -> list[Node]:
        """Returns the pods that do a task's work, one a try, the first first."""
        found = [n for dag in self._named(task) for n in self._below(dag.id) if n.kind == "Pod"]
        found += [n for n in self._named(task) if n.kind == "Pod"]
        return sorted(found, key=lambda n: (n.started, n.name))

    def pod_name(self, node: Node) -> str:
        """Returns the name that Kubernetes knows a node's pod by."""
        return f"{self.name}-{node.template}-{node.id.rpartition('-')[2]}"

    def only_lost(self) -> list[str]:
        """Returns the tasks whose pods were taken away, if the run failed by nothing else."""
        tries: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            if node.kind == "Pod":
                # Of a task that was tried again, the last try counts.
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
            return StageState(_STATES.get(last.phase, "RUNNING") if not last.finished else "RUNNING", _plain(last.message))
        if state != "FAILED":
            return StageState(state, "", node.seconds)
        said = _plain(last.message)
        if read := read_last_words(said):
            failure, stage = read
            return StageState(state, failure.message, node.seconds, failure.exit_code, stage)
        return StageState(state, said, node.seconds)

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
