"""The runner interface: check, compile (starts nothing), inspect, submit, close."""

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
# Artifact property with the MLflow run that produced it; read when the artifact comes from a cache.
PRODUCER_RUN_ID = "switchyard_mlflow_run"


@dataclass(frozen=True)
class CompiledPipeline(Generic[Program]):
    """A pipeline ready for submission.

    Attributes:
        config: resolved config; `task` is inferred.
        program: the runner's input: TFX's intermediate representation (local), or a `CompiledForKubeflow`.
        stages: stage -> its upstream stages, in topological order.
    """

    config: PipelineConfig
    program: Program
    stages: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class StageResult:
    """A stage's final status and duration in seconds."""

    status: StageStatus
    seconds: float


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run.

    Attributes:
        pipeline: name of the pipeline.
        status: `blessed`, `not_blessed`, `not_registered` (MLflow rejects the model), `stopped_by_data_gate`, `failed` or
            `cancelled`; `done` for a part of a pipeline.
        trainer: name of the best candidate's trainer; before evaluation, the names of all trainers.
        mlflow_run_id: id of the parent run; None when MLflow was unreachable.
        mlflow_experiment_id: id of its experiment; None when MLflow was unreachable.
        blessed: the evaluation's verdict; None when evaluation was not reached.
        metrics: metric -> value of the best candidate on the held-out split.
        stages: the stages that were started, with their results.
        model_version: registry version of the best candidate; None when it did not pass.
        champion: registry version of the champion after the run; None without a champion or with the registry unreachable.
        evaluation: results of all models; None when evaluation was not reached.
        outputs: stage -> output key -> URI of the artifact.
        note: a remark on the registration; empty when there is none.
        error: error message; None when nothing failed.
        exit_code: exit code of the command.
        unchanged_since: id of the MLflow run that these results are reused from; None when the stages ran.
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
        """Path of the run's report, `report.html`; None when the run did not reach the report stage."""
        folder = self.outputs.get("report", {}).get("report")
        return Path(folder) / "report.html" if folder else None

    def raise_for_status(self) -> None:
        """Raises the error of a run that failed, was stopped by the data gate or was cancelled; not blessed is no error.

        Raises:
            UserError: data, code or config are invalid, or the registry rejects the model.
            DataGateError: the data gate stopped the run.
            StageError: a stage failed.
            KeyboardInterrupt: the run was cancelled.
        """
        if self.status == "cancelled":
            raise KeyboardInterrupt
        if self.exit_code not in (EXIT_DONE, EXIT_NOT_BLESSED):
            raise Failure.of_exit_code(self.exit_code, self.error or self.status).error()


class Runner(abc.ABC, Generic[Program]):
    """A platform that runs pipelines; as a context manager, it shuts down the processes it started."""

    name: ClassVar[str]

    @abc.abstractmethod
    def check(self, config: PipelineConfig) -> PipelineConfig:
        """Returns the config with the values inferred from the data (`task`); may start processes for the checks.

        Raises:
            UserError: the config, the data, the user's code or the devices are invalid.
            DataGateError: the label has values that are not in the reviewed schema.
        """

    @abc.abstractmethod
    def compile(self, config: PipelineConfig) -> CompiledPipeline[Program]:
        """Returns the compiled pipeline for `submit`; starts nothing.

        Args:
            config: with `task` inferred, see `check`.

        Raises:
            UserError: this runner cannot run the config.
        """

    @abc.abstractmethod
    def submit(self, compiled: CompiledPipeline[Program]) -> RunResult:
        """Runs the pipeline until it ends. A stage's failure is returned in the result, not raised.

        Raises:
            UserError: the environment was not checked before and is invalid.
        """

    def run(self, config: PipelineConfig) -> RunResult:
        """Checks, compiles and submits; raises the errors of these three."""
        return self.submit(self.compile(self.check(config)))

    @abc.abstractmethod
    def close(self) -> None:
        """Shuts down all processes that the runner started; idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


# Runner name -> its class, imported on first use.
RUNNERS = {
    "local": "switchyard.pipelines.runners.local.runner:LocalRunner",
    "kfp-local": "switchyard.pipelines.runners.kubeflow.local.runner:KfpLocalRunner",
    "kfp-docker": "switchyard.pipelines.runners.kubeflow.local.runner:KfpDockerRunner",
}


def runner_class(name: str) -> type[MachineRunner[Any]]:
    """Returns the class of a runner.

    Raises:
        UserError: no runner has that name.
    """
    if name not in RUNNERS:
        problem = f"{name!r} is not a runner; allowed: {', '.join(RUNNERS)}.{did_you_mean(name, RUNNERS)}"
        raise ArgumentError("runner", problem)
    module, _, attribute = RUNNERS[name].partition(":")
    return cast("type[MachineRunner[Any]]", getattr(importlib.import_module(module), attribute))
