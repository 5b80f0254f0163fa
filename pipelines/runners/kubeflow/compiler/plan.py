"""What a KFP pipeline is made of, as plain data: between TFX's intermediate representation and the generated source."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from switchyard.components.errors import UserError

# In an artifact's metadata: its type in TFX, the importer that it came by, where its content is if KFP did not carry it.
TYPE = "tfx_type"
NODE = "tfx_node"
URI = "tfx_uri"
# Between the names of stages in the name of the task that does them one after the other. No stage's own name has it.
THEN = "-then-"


class CompileError(UserError):
    """A node that Kubeflow Pipelines cannot run, with the reason and what to do instead."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"node {node!r} cannot be compiled for Kubeflow Pipelines: {reason}")


@dataclass(frozen=True)
class InputArtifact:
    """One artifact that a task takes: `argument` of the function, from `output_key` of the node `producer`."""

    argument: str
    kfp_type: str
    producer: str
    output_key: str


@dataclass(frozen=True)
class OutputArtifact:
    """One artifact that a task makes: `key` in TFX, `argument` of the function."""

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
    """A TFX `RuntimeParameter`. `default` None: it must be given."""

    name: str
    kind: str
    default: str | int | float | None


@dataclass(frozen=True)
class View:
    """An output for KFP's pages, made of the artifact `key`."""

    key: str
    argument: str
    kfp_type: str


@dataclass(frozen=True)
class Task:
    """A node of the pipeline.

    Attributes:
        id: the node's id in TFX.
        function: name of the generated function.
        kind: `python`, `container`, `importer`, or `joint`: the tasks `members`, one after the other.
        spec: what the runtime needs besides: executor, driver, artifact types; for other kinds what `source` writes out.
        groups: TFX input key -> the arguments whose artifacts it holds.
        driver: a task of its own runs TFX's driver first.
        driver_output: what the driver said when the pipeline was compiled; empty: it did not run.
        conditions: ids of the conditions that it runs under, outermost first.
        after: nodes that it waits for without taking anything from them.
        cached: the backend may take the outputs of an earlier task.
        files: names of the local files that its exec properties speak of.
        members: of a joint task. Its own arguments are those of all of them, but for what one of them hands another.
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
        """The nodes whose artifacts it takes."""
        return {i.producer for i in self.inputs}

    @property
    def own_arguments(self) -> list[str]:
        """Its arguments that are no inputs."""
        return [
            *(o.argument for o in self.outputs),
            *(p.argument for p in self.properties),
            *(v.argument for v in self.views),
        ]


@dataclass(frozen=True)
class Member:
    """A task, inside of a joint one or by itself.

    Attributes:
        task: as it would be by itself.
        arguments: its arguments -> those of the function that runs it.
        driver_output: the argument with what its driver said; empty: it has no driver.
    """

    task: Task
    arguments: Mapping[str, str]
    driver_output: str = ""

    @classmethod
    def alone(cls, task: Task) -> Member:
        """Returns a task with the arguments that it has by itself."""
        names = [*(i.argument for i in task.inputs), *task.own_arguments]
        return cls(task, {n: n for n in names}, "driver_output" if task.driver else "")


@dataclass(frozen=True)
class Condition:
    """A predicate over artifacts, worked out by a small task of its own: KFP's conditions know parameters only."""

    id: str
    function: str
    spec: Mapping[str, Any]
    inputs: Sequence[InputArtifact]
    groups: Mapping[str, Sequence[str]]
    text: str


@dataclass(frozen=True)
class Plan:
    """A pipeline: tasks in topological order."""

    name: str
    tasks: Sequence[Task]
    conditions: Mapping[str, Condition]
    parameters: Sequence[PipelineParameter]


def task_name(function: str) -> str:
    """Returns the name that KFP gives the task of a generated function."""
    return function.replace("_", "-")


def stage_names(task: str) -> list[str]:
    """Returns the names of a KFP task's stages, in order, with dashes as KFP writes them."""
    return task.split(THEN)


def stages_of(task_id: str) -> list[str]:
    """Returns the nodes of a task by its id: a joint one's has commas between them."""
    return task_id.split(",")


class IdentifierAllocator:
    """Python identifiers, each given once."""

    def __init__(self, taken: Collection[str] = ()) -> None:
        self._taken = set(taken)

    def __contains__(self, name: str) -> bool:
        return name in self._taken

    def allocate(self, wanted: str) -> str:
        """Returns an identifier like `wanted`, not given before."""
        base = name = snake(wanted)
        number = 2
        while name in self._taken:
            name, number = f"{base}_{number}", number + 1
        self._taken.add(name)
        return name


def snake(text: str) -> str:
    """Returns `text` as a Python identifier in small letters: `StatisticsGen` is `statistics_gen`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"[^0-9a-zA-Z]+", "_", text)).strip("_").lower()
    # What joins the names of stages in the name of one task.
    words = words.replace("_then_", "_next_")
    if not words or words[0].isdigit():
        words = f"n{words}"
    return f"{words}_" if keyword.iskeyword(words) else words


def check_names(tasks: Sequence[Task]) -> None:
    """Argo gets two steps for each KFP task, `x` and `x-driver`: no other may be called so."""
    functions = {t.function: t.id for t in tasks}
    functions |= {f"drive_{t.function}": t.id for t in tasks if t.driver}
    for function, node in functions.items():
        if f"{function}_driver" in functions:
            raise CompileError(
                functions[f"{function}_driver"], f"Kubeflow needs its name for a step of {node!r} of its own; give it another id"
            )


def check_importable(node: str, spec: str) -> None:
    """A task imports its executor: one that a script defines cannot be found there."""
    if "'__main__." in spec:
        raise CompileError(node, "its executor is defined in a script (__main__); put it into a module that the image holds")


def check_conditions(tasks: Mapping[str, Task], conditions: Mapping[str, Condition]) -> None:
    """What runs only if something holds can be needed only by what runs under the same condition."""
    for task in tasks.values():
        for producer in [*task.producers, *task.after]:
            inner = set(tasks[producer].conditions) - set(task.conditions)
            if inner:
                said = conditions[sorted(inner)[0]].text
                raise CompileError(
                    task.id, f"it needs {producer!r}, which runs only if {said}; put both under the same tfx.dsl.Cond"
                )
