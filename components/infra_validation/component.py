"""The infra-validation stage as a TFX component."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from switchyard.components.infra_validation.config import InfraValidationSettings
from switchyard.components.infra_validation.executor import Executor


class InfraValidationSpec(types.ComponentSpec):
    """`settings`: `InfraValidationSettings` as JSON."""

    PARAMETERS = {"settings": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "model": ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}


class InfraValidation(base_component.BaseComponent):
    """Serves every candidate for a moment: one that does not start, or answers otherwise than offline, is not promoted.

    It needs no evaluation, so that both run side by side and a model from the cache is not checked again.

    Outputs:
        blessing: as TFX's InfraValidator writes it, of all candidates together; `infra_validation.json`, what was
            found of each; `<candidate>.log`, what its server printed.
    """

    SPEC_CLASS = InfraValidationSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, examples: types.BaseChannel, model: types.BaseChannel, settings: InfraValidationSettings) -> None:
        super().__init__(
            InfraValidationSpec(
                settings=settings.model_dump_json(),
                examples=examples,
                model=model,
                blessing=types.Channel(standard_artifacts.InfraBlessing),
            )
        )
