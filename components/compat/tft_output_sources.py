"""Finds the inputs of each output of a transform graph in one walk for all outputs that come from one operation.

TFX Transform walks the whole graph behind every output when it loads a graph, which takes minutes for a thousand columns that
were computed as one matrix. The result is the same. Without the patch, graphs behave the same but load slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow_transform.saved import saved_transform_io_v2

from switchyard.components.compat.patch import Private

PRIVATE = Private(
    "tensorflow-transform",
    ("1.16", "1.21"),
    (
        "tensorflow_transform.graph_tools:retrieve_sources",
        "tensorflow_transform.saved.saved_transform_io_v2:_get_output_to_inputs_map",
    ),
    "https://github.com/tensorflow/transform/blob/v1.16.0/tensorflow_transform/saved/saved_transform_io_v2.py",
)


def install() -> None:
    """Installs the patch in this process and its forks. Idempotent."""
    original = saved_transform_io_v2._get_output_to_inputs_map
    if original.__module__ != __name__ and PRIVATE.fits():
        saved_transform_io_v2._get_output_to_inputs_map = _walking_once(original)


def _walking_once(original: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def output_to_inputs(output_signature: Mapping[str, Any]) -> dict[str, Any]:
        known: dict[Any, Any] = {}
        found = {}
        for name, output in output_signature.items():
            origin = _origin(output)
            key = name if origin is None else origin
            if key not in known:
                known[key] = original({name: output})[name]
            found[name] = known[key]
        return found

    output_to_inputs.__module__ = __name__
    return output_to_inputs


def _origin(output: Any) -> Any:
    """Returns the first operation behind a dense output that has several inputs, or none; None for other outputs."""
    # A sparse output's `op` makes its values only; its indices come from others.
    operation = output.op if isinstance(output, tf.Tensor) else None
    while operation is not None and len(operation.inputs) == 1:
        operation = operation.inputs[0].op
    return operation
