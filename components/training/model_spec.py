"""The argument of `build_model(spec)`: the inputs and the outputs of a model. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.errors import UserError


@dataclass(frozen=True)
class ModelSpec:
    """The argument of `build_model(spec)`. The model maps a dict of batches to logits, shape (B, outputs).

    In a `custom` task it maps them to what is served, shape (B, *output_shape).

    Attributes:
        features: the transformed features.
        task: name of a task.
        outputs: 1 for binary (the logit of the last class) and regression (the value), else the number of classes,
            quantiles or labels, or numbers of `output_shape`.
        parameters: the config's `trainer.model_parameters`.
        targets: the quantiles as texts, or the label columns, in the order of the outputs; empty for the other tasks.
        output_shape: the config's `trainer.output_shape`; empty for other tasks than `custom`.
        label_shape: of a `custom` task the shape of a row's label: () of a number; None without a label, and for other tasks.
    """

    features: tuple[FeatureSpec, ...]
    task: str
    outputs: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    output_shape: tuple[int, ...] = ()
    label_shape: tuple[int, ...] | None = None


def check_output(shape: tuple[int, ...], batch: int, spec: ModelSpec) -> None:
    """Raises UserError unless a model's output is (batch, spec.outputs), or (batch, *spec.output_shape) of a `custom` task."""
    if spec.output_shape and tuple(shape) != (batch, *spec.output_shape):
        raise UserError(
            f"trainer.model: build_model returned a model whose output has shape {tuple(shape)} for {batch} examples; "
            f"trainer.output_shape {list(spec.output_shape)} needs {(batch, *spec.output_shape)}; change one of them"
        )
    if not spec.output_shape and tuple(shape) != (batch, spec.outputs):
        raise UserError(
            f"trainer.model: build_model returned a model whose output has shape {tuple(shape)} for {batch} examples; "
            f"a {spec.task} task needs logits of shape ({batch}, {spec.outputs})."
        )
