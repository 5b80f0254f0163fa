"""The training stage as a TFX component, shared by all trainers."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from switchyard.components.artifacts import StartingPoint
from switchyard.components.training.executor import Executor
from switchyard.components.training.settings import TrainerSettings


class TrainingSpec(types.ComponentSpec):
    """The component's interface. `settings` is `TrainerSettings` as JSON; tuned values override it."""

    PARAMETERS = {"settings": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "transformed_examples": ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
        "best_hyperparameters": ChannelParameter(type=standard_artifacts.HyperParameters, optional=True),
        "starting_point": ChannelParameter(type=StartingPoint, optional=True),
    }
    OUTPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
    }


class Training(base_component.BaseComponent):
    """A component that runs any `Trainer`.

    Outputs:
        model: the bundle, an MLflow Model, under `Format-Serving/`.
        model_run: `result.json`, the `TrainResult`.
    """

    SPEC_CLASS = TrainingSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        statistics: types.BaseChannel,
        schema: types.BaseChannel,
        transformed_examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        settings: TrainerSettings,
        best_hyperparameters: types.BaseChannel | None = None,
        starting_point: types.BaseChannel | None = None,
    ) -> None:
        given = {"best_hyperparameters": best_hyperparameters, "starting_point": starting_point}
        optional = {key: channel for key, channel in given.items() if channel}
        super().__init__(
            TrainingSpec(
                settings=settings.model_dump_json(exclude_defaults=True),
                examples=examples,
                statistics=statistics,
                schema=schema,
                transformed_examples=transformed_examples,
                transform_graph=transform_graph,
                model=types.Channel(standard_artifacts.Model),
                model_run=types.Channel(standard_artifacts.ModelRun),
                **optional,
            )
        )
