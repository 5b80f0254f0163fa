"""The tuning stage as a TFX component, shared by all trainers."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from switchyard.components.artifacts import StartingPoint
from switchyard.components.training.settings import TrainerSettings
from switchyard.components.tuning.config import TuningSettings
from switchyard.components.tuning.executor import Executor


class TuningSpec(types.ComponentSpec):
    """The component's interface. `settings` is `TrainerSettings` as JSON, `tune` is `TuningSettings` as JSON."""

    PARAMETERS = {"settings": ExecutionParameter(type=str), "tune": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "transformed_examples": ChannelParameter(type=standard_artifacts.Examples),
        "starting_point": ChannelParameter(type=StartingPoint, optional=True),
    }
    OUTPUTS = {"best_hyperparameters": ChannelParameter(type=standard_artifacts.HyperParameters)}


class Tuning(base_component.BaseComponent):
    """A component that searches one trainer's hyperparameters on the eval split.

    Outputs:
        best_hyperparameters: `best.json`, `trials.json` and an HTML page; see `switchyard.components.tuning.results`.
    """

    SPEC_CLASS = TuningSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        transformed_examples: types.BaseChannel,
        settings: TrainerSettings,
        tune: TuningSettings,
        starting_point: types.BaseChannel | None = None,
    ) -> None:
        optional = {"starting_point": starting_point} if starting_point else {}
        super().__init__(
            TuningSpec(
                settings=settings.model_dump_json(exclude_defaults=True),
                tune=tune.model_dump_json(exclude_defaults=True),
                examples=examples,
                transformed_examples=transformed_examples,
                best_hyperparameters=types.Channel(standard_artifacts.HyperParameters),
                **optional,
            )
        )
