"""The data gate as a TFX component. Run it uncached: it compares with data outside of the workspace."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from switchyard.components.artifacts import Baseline, DataVerdict
from switchyard.components.data_gate.config import DataGateSettings
from switchyard.components.data_gate.executor import Executor


class DataGateSpec(types.ComponentSpec):
    """`settings`: `DataGateSettings` as JSON."""

    PARAMETERS = {"settings": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "baseline": ChannelParameter(type=Baseline),
    }
    OUTPUTS = {"verdict": ChannelParameter(type=DataVerdict)}


class DataGate(base_component.BaseComponent):
    """Stops the run on anomalies, drift, skew or leaks, as configured.

    Outputs:
        verdict: see `switchyard.components.data_gate.findings.Verdict`.
    """

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        statistics: types.BaseChannel,
        schema: types.BaseChannel,
        anomalies: types.BaseChannel,
        baseline: types.BaseChannel,
        settings: DataGateSettings,
    ) -> None:
        super().__init__(
            DataGateSpec(
                settings=settings.model_dump_json(exclude_defaults=True),
                examples=examples,
                statistics=statistics,
                schema=schema,
                anomalies=anomalies,
                baseline=baseline,
                verdict=types.Channel(DataVerdict),
            )
        )
