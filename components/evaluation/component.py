"""The evaluation stage as a TFX component."""

from __future__ import annotations

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from switchyard.components.artifacts import Baseline
from switchyard.components.evaluation.config import EvaluationSettings
from switchyard.components.evaluation.executor import Executor


class EvaluationSpec(types.ComponentSpec):
    """The component's interface. `settings` is `EvaluationSettings` as JSON."""

    PARAMETERS = {"settings": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "baseline": ChannelParameter(type=Baseline),
    }
    OUTPUTS = {
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class Evaluate(base_beam_component.BaseBeamComponent):
    """A component that evaluates bundles and the champion with TFMA on the raw held-out split (`test`, else `eval`).

    Outputs:
        evaluation: TFMA's result, readable by `tfma.load_metrics`, `metrics.json` and the predictions as Parquet.
        blessing: `BLESSED` or `NOT_BLESSED` for the best candidate, in the format of TFX's Evaluator.
    """

    SPEC_CLASS = EvaluationSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self, examples: types.BaseChannel, model: types.BaseChannel, baseline: types.BaseChannel, settings: EvaluationSettings
    ) -> None:
        super().__init__(
            EvaluationSpec(
                settings=settings.model_dump_json(exclude_defaults=True),
                examples=examples,
                model=model,
                baseline=baseline,
                evaluation=types.Channel(standard_artifacts.ModelEvaluation),
                blessing=types.Channel(standard_artifacts.ModelBlessing),
            )
        )
