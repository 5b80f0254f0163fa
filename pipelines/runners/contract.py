"""The runner contract: check, compile (starts nothing), look at it, submit, close."""

from __future__ import annotations

import abc
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar, cast

from switchyard.components.errors import (
    EXIT_DONE,
    EXIT_NOT_BLESSED,
    ArgumentError,
    Failure,
    did_you_mean,
)
from switchyard.components.evaluation.results import Evaluation
from switchyard.pipelines.config.pipeline import PipelineConfig

if TYPE_CHECKING:
    from switchyard.pipelines.runners.this_machine import MachineRunner

Program = TypeVar("Program")
StageStatus = Literal["ran", "cached", "failed", "cancelled"]
# In an artifact's properties: the MLflow run that made it, for those who take it from a cache.
PRODUCER_RUN_ID = "switchyard_mlflow_run"


@dataclass(frozen=True)
class CompiledPipeline(Generic[Program]):
    """A pipeline ready to be submitted.

    Attributes:
        config: resolved; `task` is decided.
        program: what the runner runs: TFX's intermediate representation (local), or a `CompiledForKubeflow`.
        stages: stage -> the stages it waits for, in topological order.
    """

    config: PipelineConfig
    program: Program
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
        status: `blessed`, `not_blessed`, `not_registered` (MLflow refuses the model), `stopped_by_data_gate`, `failed` or
            `cancelled`; `done` of a part of a pipeline.
        trainer: name of the best candidate's; before evaluation, of all.
        mlflow_run_id: the parent run; None when MLflow was away.
        mlflow_experiment_id: likewise.
        blessed: None when evaluation was not reached.
        metrics: metric -> value of the best candidate on the held-out split.
        stages: those that were started.
        model_version: of the best candidate in the registry; None when it did not pass.
        champion: the registry's version after the run; None when there is none, or it could not be asked for.
        evaluation: of all models; None when it was not reached.
        outputs: stage -> output's key -> URI of the artifact.
        note: what a person should know of the registration; empty: nothing.
        error: what went wrong, for a person; None when nothing did.
        exit_code: for the command line.
        unchanged_since: the MLflow run whose results these are, when nothing had changed since it.
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
    champion: str | None
    evaluation: Evaluation | None
    outputs: Mapping[str, Mapping[str, str]]
    note: str
    error: str | None
    exit_code: int
    unchanged_since: str | None = None

    @property
    def report(self) -> Path | None:
        """The page on the run, `report.html`; None when the run did not come to its report."""
        folder = self.outputs.get("report", {}).get("report")
        return Path(folder) / "report.html" if folder else None

    def raise_for_status(self) -> None:
        """Raises the error of a run that failed, was stopped by the data gate or cancelled; a verdict is no error.

        Raises:
            UserError: data, code or config were wrong, or the registry refuses the model.
            DataGateError: the data gate stopped it.
            StageError: a stage failed.
            KeyboardInterrupt: it was cancelled.
        """
        if self.status == "cancelled":
            raise KeyboardInterrupt
        if self.exit_code not in (EXIT_DONE, EXIT_NOT_BLESSED):
            raise Failure.of_exit_code(self.exit_code, self.error or self.status).error()


class Runner(abc.ABC, Generic[Program]):
    """Runs pipelines somewhere; a context that ends, at its end, the processes that it has started."""

    name: ClassVar[str]

    @abc.abstractmethod
    def check(self, config: PipelineConfig) -> PipelineConfig:
        """Returns the config with what its data decides (`task`); may start processes to look.

        Raises:
            UserError: the config, the data, the user's code or the devices are wrong.
            DataGateError: the label has values that the reviewed schema does not know.
        """

    @abc.abstractmethod
    def compile(self, config: PipelineConfig) -> CompiledPipeline[Program]:
        """Returns what `submit` takes; starts nothing.

        Args:
            config: with `task` decided, see `check`.

        Raises:
            UserError: it cannot run so.
        """

    @abc.abstractmethod
    def submit(self, compiled: CompiledPipeline[Program]) -> RunResult:
        """Runs it to the end. A stage's failure is in the result, not raised.

        Raises:
            UserError: the environment was not checked before, and is wrong.
        """

    def run(self, config: PipelineConfig) -> RunResult:
        """Checks, compiles and submits; raises as these do."""
        return self.submit(self.compile(self.check(config)))

    @abc.abstractmethod
    def close(self) -> None:
        """Ends all processes that it has started; once more does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


# Name of a runner -> its class, imported on first use.
RUNNERS = {
    "local": "switchyard.pipelines.runners.local.runner:LocalRunner",
    "kfp-local": "switchyard.pipelines.runners.kubeflow.local.runner:KfpLocalRunner",
    "kfp-docker": "switchyard.pipelines.runners.kubeflow.local.runner:KfpDockerRunner",
}


def runner_class(name: str) -> type[MachineRunner[Any]]:
    """Returns the runner's class.

    Raises:
        UserError: there is none of that name.
    """
    if name not in RUNNERS:
        problem = f"{name!r} is no runner; allowed: {', '.join(RUNNERS)}.{did_you_mean(name, RUNNERS)}"
        raise ArgumentError("runner", problem)
    module, _, attribute = RUNNERS[name].partition(":")
    return cast("type[MachineRunner[Any]]", getattr(importlib.import_module(module), attribute))
