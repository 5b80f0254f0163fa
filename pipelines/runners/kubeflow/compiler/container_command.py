"""Converts the command of a TFX container component to KFP: strings, exec properties, URIs of inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfx.dsl.compiler import placeholder_utils
from tfx.proto.orchestration.placeholder_pb2 import Placeholder

from switchyard.pipelines.runners.kubeflow.compiler.plan import CompileError


def container_spec(node: str, spec: Any, common: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `image`, and `command` and `args` as lists of source fragments per argument.

    Args:
        node: id of the node.
        spec: TFX's `ContainerExecutableSpec`.
        common: `groups`, `outputs` and `properties` of the `Task`.

    Raises:
        CompileError: the command has a placeholder that KFP cannot resolve.
    """
    inputs = {key: names[0] for key, names in common["groups"].items()}
    outputs = {o.key: o.argument for o in common["outputs"]}
    properties = {p.key: p.argument for p in common["properties"]}

    def part(expression: Any) -> list[str]:
        """Returns the source fragments of one argument: literals and references."""
        kind = expression.WhichOneof("expression_type")
        if kind == "value":
            return [repr(str(getattr(expression.value, expression.value.WhichOneof("value"))))]
        if kind == "placeholder" and expression.placeholder.type == Placeholder.EXEC_PROPERTY:
            return [properties[expression.placeholder.key]]
        if kind == "operator":
            operator = expression.operator
            which = operator.WhichOneof("operator_type")
            if which == "concat_op":
                return [piece for inner in operator.concat_op.expressions for piece in part(inner)]
            if which == "artifact_uri_op" and not operator.artifact_uri_op.split:
                index = operator.artifact_uri_op.expression.operator.index_op
                placeholder = index.expression.placeholder
                names = inputs if placeholder.type == Placeholder.INPUT_ARTIFACT else outputs
                if index.index == 0 and placeholder.key in names:
                    return [f"{names[placeholder.key]}.uri"]
        raise CompileError(
            node,
            f"its command contains {placeholder_utils.debug_str(expression)}; a container's command may contain texts, "
            "exec properties and the URIs of its inputs and outputs",
        )

    return {
        "image": spec.image,
        "command": [part(c) for c in spec.commands],
        "args": [part(a) for a in spec.args],
    }
