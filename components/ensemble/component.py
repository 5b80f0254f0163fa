"""The ensemble stage as a TFX component."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from switchyard.components.ensemble.config import EnsembleSettings
from switchyard.components.ensemble.executor import Executor


class EnsembleSpec(types.ComponentSpec):
    """The component's interface. `settings` is `EnsembleSettings` as JSON."""

    PARAMETERS = {"settings": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "members": ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
    }


class Ensemble(base_component.BaseComponent):
    """A component that combines the models of the trainings to one more candidate.

    Outputs:
        model: the bundle, an MLflow Model, under `Format-Serving/`.
        model_run: `result.json` with the weights.
    """

    SPEC_CLASS = EnsembleSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, examples: types.BaseChannel, members: types.BaseChannel, settings: EnsembleSettings) -> None:
        super().__init__(
            EnsembleSpec(
                settings=settings.model_dump_json(),
                examples=examples,
                members=members,
                model=types.Channel(standard_artifacts.Model),
                model_run=types.Channel(standard_artifacts.ModelRun),
            )
        )
