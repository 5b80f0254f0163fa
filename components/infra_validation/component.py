"""Defines the infra-validation stage as a TFX component."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from switchyard.components.infra_validation.config import InfraValidationSettings
from switchyard.components.infra_validation.executor import Executor


class InfraValidationSpec(types.ComponentSpec):
    """The component's interface; `settings` is `InfraValidationSettings` as JSON."""

    PARAMETERS = {"settings": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "model": ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}


class InfraValidation(base_component.BaseComponent):
    """A stage that serves every candidate briefly; one that fails to start or differs from offline is not promoted.

    It does not depend on evaluation, so both run in parallel and a cached model is not checked again.

    Outputs:
        blessing: the verdict on all candidates in the format of TFX's InfraValidator; `infra_validation.json`, the result of
            each candidate; `<candidate>.log`, its server's output.
    """

    SPEC_CLASS = InfraValidationSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, examples: types.BaseChannel, model: types.BaseChannel, settings: InfraValidationSettings) -> None:
        super().__init__(
            InfraValidationSpec(
                settings=settings.model_dump_json(exclude_defaults=True),
                examples=examples,
                model=model,
                blessing=types.Channel(standard_artifacts.InfraBlessing),
            )
        )
