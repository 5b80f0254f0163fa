"""The runner contract: compile (starts nothing), look at it, submit."""

from __future__ import annotations

import abc
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from switchyard.components.errors import UserError, did_you_mean
from switchyard.components.evaluation.results import Evaluation
from switchyard.pipelines.config.pipeline import PipelineConfig

StageStatus = Literal["ran", "cached", "failed", "cancelled"]
# In an artifact's properties: the MLflow run that made it, for those who take it from a cache.
PRODUCER_RUN_ID = "switchyard_mlflow_run"


@dataclass(frozen=True)
class CompiledPipeline:
    """A pipeline ready to be submitted.

    Attributes:
        config: resolved; `task` is decided.
        program: what the runner runs: TFX's intermediate representation, or a `CompiledForKubeflow`.
        stages: stage -> the stages it waits for, in topological order.
    """

    config: PipelineConfig
    program: Any
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


# Name of a runner -> its class, imported on first use.
RUNNERS = {
    "local": "switchyard.pipelines.runners.local.runner:LocalRunner",
    "kfp-local": "switchyard.pipelines.runners.kubeflow.local.runner:KfpLocalRunner",
    "kfp-docker": "switchyard.pipelines.runners.kubeflow.local.runner:KfpDockerRunner",
}


def runner_class(name: str) -> Any:
    """Returns the runner's class.

    Raises:
        UserError: there is none of that name.
    """
    if name not in RUNNERS:
        raise UserError(f"--runner {name!r}: is no runner; allowed: {', '.join(RUNNERS)}.{did_you_mean(name, RUNNERS)}")
    module, _, attribute = RUNNERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
