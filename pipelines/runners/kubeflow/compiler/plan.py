"""Plain data of a KFP pipeline, between TFX's intermediate representation and the generated source."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from switchyard.components.errors import UserError

# Keys of an artifact's metadata: its TFX type, the importer that created it, the URI of content that KFP does not transport.
TYPE = "tfx_type"
NODE = "tfx_node"
URI = "tfx_uri"
# Separates the stages' names in the name of a joint task; no stage's name contains it.
THEN = "-then-"


class CompileError(UserError):
    """A node cannot run on Kubeflow Pipelines; the message gives the reason and the fix."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"node {node!r} cannot be compiled for Kubeflow Pipelines: {reason}")


@dataclass(frozen=True)
class InputArtifact:
    """An input artifact of a task: the function's `argument`, from `output_key` of the node `producer`."""

    argument: str
    kfp_type: str
    producer: str
    output_key: str


@dataclass(frozen=True)
class OutputArtifact:
    """An output artifact of a task: `key` in TFX, `argument` of the function."""

    key: str
    argument: str
    kfp_type: str


@dataclass(frozen=True)
class ExecProperty:
    """An exec property: a constant, or the pipeline parameter named in `parameter`. `kind`: `str`, `int` or `float`."""

    key: str
    argument: str
    kind: str
    value: str | int | float | None
    parameter: str | None = None


@dataclass(frozen=True)
class PipelineParameter:
    """A TFX `RuntimeParameter`; required when `default` is None."""

    name: str
    kind: str
    default: str | int | float | None


@dataclass(frozen=True)
class View:
    """An output for KFP's pages, created from the artifact `key`."""

    key: str
    argument: str
    kfp_type: str


@dataclass(frozen=True)
class Task:
    """A node of the pipeline.

    Attributes:
        id: the node's id in TFX.
        function: name of the generated function.
        kind: `python`, `container`, `importer`, or `joint`: the tasks `members` in order.
        spec: for Python tasks, settings of the runtime: executor, driver, artifact types; for other kinds, input of `source`.
        groups: TFX input key -> arguments that hold its artifacts.
        driver: a separate task runs TFX's driver first.
        driver_output: output of a driver that ran at compile time; empty if it did not run.
        conditions: ids of the conditions that it runs under, outermost first.
        after: upstream nodes whose outputs it does not use.
        cached: the backend may reuse the outputs of an earlier task.
        files: names of the local files that its exec properties refer to.
        members: the joined tasks. A joint task has the arguments of all members, except inputs produced by another member.
    """

    id: str
    function: str
    kind: str
    spec: Mapping[str, Any]
    inputs: Sequence[InputArtifact] = ()
    outputs: Sequence[OutputArtifact] = ()
    properties: Sequence[ExecProperty] = ()
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    views: Sequence[View] = ()
    driver: bool = False
    driver_output: str = ""
    conditions: tuple[str, ...] = ()
    after: Sequence[str] = ()
    cached: bool = True
    files: Collection[str] = ()
    members: Sequence[Member] = ()

    @property
    def producers(self) -> set[str]:
        """Nodes that produce its inputs."""
        return {i.producer for i in self.inputs}

    @property
    def own_arguments(self) -> list[str]:
        """Arguments that are not inputs."""
        return [
            *(o.argument for o in self.outputs),
            *(p.argument for p in self.properties),
            *(v.argument for v in self.views),
        ]


@dataclass(frozen=True)
class Member:
    """A member of a joint task, or a separate task.

    Attributes:
        task: the separate task.
        arguments: argument of the task -> argument of the function that runs it.
        driver_output: argument with the driver's output; empty when there is no driver.
    """

    task: Task
    arguments: Mapping[str, str]
    driver_output: str = ""

    @classmethod
    def alone(cls, task: Task) -> Member:
        """Returns the member for a separate task: arguments keep their names."""
        names = [*(i.argument for i in task.inputs), *task.own_arguments]
        return cls(task, {n: n for n in names}, "driver_output" if task.driver else "")


@dataclass(frozen=True)
class Condition:
    """A predicate over artifacts, evaluated by a separate task because KFP's conditions only support parameters."""

    id: str
    function: str
    spec: Mapping[str, Any]
    inputs: Sequence[InputArtifact]
    groups: Mapping[str, Sequence[str]]
    text: str


@dataclass(frozen=True)
class Plan:
    """A pipeline with its tasks in topological order."""

    name: str
    tasks: Sequence[Task]
    conditions: Mapping[str, Condition]
    parameters: Sequence[PipelineParameter]


def task_name(function: str) -> str:
    """Returns KFP's name for the task of a generated function."""
    return function.replace("_", "-")


def stage_names(task: str) -> list[str]:
    """Returns the stage names of a KFP task, in order, with KFP's dashes."""
    return task.split(THEN)


def stages_of(task_id: str) -> list[str]:
    """Returns the nodes of a task id; a joint task's id separates them by commas."""
    return task_id.split(",")


class IdentifierAllocator:
    """Allocator of unique Python identifiers."""

    def __init__(self, taken: Collection[str] = ()) -> None:
        self._taken = set(taken)

    def __contains__(self, name: str) -> bool:
        return name in self._taken

    def allocate(self, wanted: str) -> str:
        """Returns an unused identifier derived from `wanted`."""
        base = name = snake(wanted)
        number = 2
        while name in self._taken:
            name, number = f"{base}_{number}", number + 1
        self._taken.add(name)
        return name


def snake(text: str) -> str:
    """Converts `text` to a lowercase Python identifier: `StatisticsGen` becomes `statistics_gen`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"[^0-9a-zA-Z]+", "_", text)).strip("_").lower()
    # `_then_` is reserved: it separates the stages' names in a joint task.
    words = words.replace("_then_", "_next_")
    if not words or words[0].isdigit():
        words = f"n{words}"
    return f"{words}_" if keyword.iskeyword(words) else words


def check_names(tasks: Sequence[Task]) -> None:
    """Raises CompileError for a name collision: Argo gets two steps per KFP task, `x` and `x-driver`."""
    functions = {t.function: t.id for t in tasks}
    functions |= {f"drive_{t.function}": t.id for t in tasks if t.driver}
    for function, node in functions.items():
        if f"{function}_driver" in functions:
            raise CompileError(functions[f"{function}_driver"], f"its id is reserved for a step of {node!r}; choose another id")


def check_importable(node: str, spec: str) -> None:
    """Raises CompileError for an executor defined in a script (`__main__`), which a task cannot import."""
    if "'__main__." in spec:
        raise CompileError(node, "its executor is defined in a script (__main__); move it to a module in the image")


def check_conditions(tasks: Mapping[str, Task], conditions: Mapping[str, Condition]) -> None:
    """Raises CompileError for a task that depends on a conditional node without running under the same condition."""
    for task in tasks.values():
        for producer in [*task.producers, *task.after]:
            inner = set(tasks[producer].conditions) - set(task.conditions)
            if inner:
                condition = conditions[sorted(inner)[0]].text
                raise CompileError(
                    task.id, f"it needs {producer!r}, which runs only if {condition}; put both under the same tfx.dsl.Cond"
                )
