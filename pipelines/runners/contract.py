"""The runner contract: compile (starts nothing), look at it, submit."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pipelines.config import PipelineConfig

StageStatus = Literal["ran", "cached", "failed"]


@dataclass(frozen=True)
class CompiledPipeline:
    """A pipeline ready to be submitted.

    Attributes:
        config: resolved; `task` is decided.
        ir: TFX's intermediate representation, a `pipeline_pb2.Pipeline`.
        stages: stage -> the stages it waits for, in topological order.
    """

    config: PipelineConfig
    ir: Any
    stages: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class StageResult:
    """How a stage ended, after how many seconds."""

    status: StageStatus
    seconds: float


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        pipeline: its name.
        status: `blessed`, `not_blessed`, or `failed`.
        trainer: the trainer's name.
        mlflow_run_id: the parent run; None when MLflow was away.
        mlflow_experiment_id: likewise.
        blessed: None when evaluation was not reached.
        metrics: metric -> value on the eval split.
        stages: those that were started.
        model_version: in the registry; None when there is none.
        error: what went wrong, for a person; None when nothing did.
        exit_code: for the command line.
    """

    pipeline: str
    status: str
    trainer: str
    mlflow_run_id: str | None
    mlflow_experiment_id: str | None
    blessed: bool | None
    metrics: Mapping[str, float]
    stages: Mapping[str, StageResult]
    model_version: str | None
    error: str | None
    exit_code: int
    failures: tuple[str, ...] = field(default=())


class Runner(abc.ABC):
    """Runs pipelines somewhere."""

    name: ClassVar[str]

    @abc.abstractmethod
    def compile(self, config: PipelineConfig) -> CompiledPipeline:
        """Returns what `submit` takes; starts nothing.

        Raises:
            UserError: the config, the data or the user's code is wrong.
        """

    @abc.abstractmethod
    def submit(self, compiled: CompiledPipeline) -> RunResult:
        """Runs it to the end. A stage's failure is in the result, not raised."""
