"""What a KFP pipeline is made of, as plain data: between TFX's intermediate representation and the generated source."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# In an artifact's metadata: its type in TFX, the importer that it came by, where its content is if KFP did not carry it.
TYPE = "tfx_type"
NODE = "tfx_node"
URI = "tfx_uri"


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
        kind: `python`, `container` or `importer`.
        spec: what the runtime needs besides: executor, driver, artifact types; for other kinds what `source` writes out.
        groups: TFX input key -> the arguments whose artifacts it holds.
        driver: a task of its own runs TFX's driver first.
        driver_output: what the driver said when the pipeline was compiled; empty: it has not run.
        conditions: ids of the conditions that it runs under, outermost first.
        after: nodes that it waits for without taking anything from them.
        cached: the backend may take the outputs of an earlier task.
        files: names of the local files that its exec properties speak of.
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

    @property
    def producers(self) -> set[str]:
        """The nodes whose artifacts it takes."""
        return {i.producer for i in self.inputs}


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


class Names:
    """Python identifiers, each given once."""

    def __init__(self, taken: Collection[str] = ()) -> None:
        self._taken = set(taken)

    def give(self, wanted: str) -> str:
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
    if not words or words[0].isdigit():
        words = f"n{words}"
    return f"{words}_" if keyword.iskeyword(words) else words
