"""The ingest stage as a TFX component."""

from __future__ import annotations

from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from switchyard.components.ingest.driver import Driver
from switchyard.components.ingest.executor import Executor
from switchyard.components.ingest.input_spec import InputSpec
from switchyard.components.text.compact import compact


class IngestSpec(types.ComponentSpec):
    """Spec of the component. `input`: JSON of an InputSpec; `version`: cache key only; `fingerprint`: set by the driver."""

    PARAMETERS = {
        "input": ExecutionParameter(type=str),
        "version": ExecutionParameter(type=str),
        "fingerprint": ExecutionParameter(type=str, optional=True),
    }
    INPUTS: dict[str, Any] = {}
    OUTPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}


class Ingest(base_component.BaseComponent):
    """A component that reads files in any supported format and writes `tf.Example` TFRecords per split and a `DatasetSummary`.

    Outputs:
        examples: `standard_artifacts.Examples`, as TFX components consume them.
    """

    SPEC_CLASS = IngestSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, spec: InputSpec, version: str) -> None:
        super().__init__(
            IngestSpec(
                input=compact(spec.given),
                version=version,
                examples=types.Channel(standard_artifacts.Examples),
            )
        )
