"""Tracks the range of vocabulary indices through the padding, slicing and shifting of a `preprocessing_fn`.

TFX Transform records the range for a vocabulary's output tensor only. It loses the range when tokens are padded to one length,
and a model then lacks the number of rows of its embedding. This module follows the range to the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow_transform import schema_inference

# Smallest and largest index, as tensors: a vocabulary's size is known only when the data has been read.
Range = tuple[Any, Any]

# Operation -> indices of the inputs that its values come from.
_VALUES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(
        ("Cast", "EnsureShape", "ExpandDims", "GatherV2", "Identity", "Reshape", "ReverseV2", "Slice", "Squeeze", "StridedSlice"),
        (0,),
    ),
    **dict.fromkeys(("StopGradient", "Tile", "Transpose"), (0,)),
    "Fill": (1,),
    "PadV2": (0, 2),
    "RaggedTensorToTensor": (1, 2),
    "Select": (1, 2),
    "SelectV2": (1, 2),
    "SparseToDense": (2, 3),
}
_CONSTANTS = {"ZerosLike": 0, "OnesLike": 1}
_SUMS = frozenset({"Add", "AddV2", "Sub"})


def note_ranges(outputs: Mapping[str, Any]) -> None:
    """Records the range of each dense int64 output made of vocabulary indices only, where Transform has no range for it."""
    for value in outputs.values():
        if isinstance(value, tf.Tensor) and value.dtype == tf.int64 and _noted(value) is None:
            found, of_vocabulary = _range(value)
            if found is not None and of_vocabulary:
                schema_inference.set_tensor_schema_override(value, *found)


def _noted(tensor: Any) -> Range | None:
    try:
        low, high = schema_inference.get_tensor_schema_override(tensor)
    except ValueError:
        return None
    return tf.cast(low, tf.int64), tf.cast(high, tf.int64)


def _range(tensor: Any) -> tuple[Range | None, bool]:
    """Returns a tensor's range (None when unknown) and whether it includes vocabulary indices."""
    if tensor.dtype == tf.int64 and (noted := _noted(tensor)) is not None:
        return noted, True
    kind, inputs = tensor.op.type, list(tensor.op.inputs)
    if kind == "Const" or kind in _CONSTANTS:
        return _of_constant(tensor), False
    if kind in _SUMS:
        return _shifted(kind, *map(_range, inputs))
    if kind == "Pad":  # with zeros
        return _joined([_range(inputs[0]), ((tf.constant(0, tf.int64),) * 2, False)])
    places = {"Pack": range(len(inputs)), "ConcatV2": range(len(inputs) - 1)}.get(kind, _VALUES.get(kind))
    return _joined(_range(inputs[i]) for i in places) if places else (None, False)


def _of_constant(tensor: Any) -> Range | None:
    if tensor.op.type in _CONSTANTS:
        return (tf.constant(_CONSTANTS[tensor.op.type], tf.int64),) * 2
    if not tensor.dtype.is_integer or not tensor.shape.num_elements():
        return None
    values = tf.cast(tensor, tf.int64)
    return tf.reduce_min(values), tf.reduce_max(values)


def _joined(parts: Iterable[tuple[Range | None, bool]]) -> tuple[Range | None, bool]:
    found = list(parts)
    ranges = [r for r, _ in found if r is not None]
    if len(ranges) < len(found):
        return None, False
    return (_fold(tf.minimum, [r[0] for r in ranges]), _fold(tf.maximum, [r[1] for r in ranges])), any(v for _, v in found)


def _fold(function: Callable[[Any, Any], Any], values: list[Any]) -> Any:
    result, *others = values
    for value in others:
        result = function(result, value)
    return result


def _shifted(kind: str, a: tuple[Range | None, bool], b: tuple[Range | None, bool]) -> tuple[Range | None, bool]:
    """Returns the range of indices shifted by a constant, for example to reserve 0 for padding; a sum of two indices has none."""
    if a[0] is None or b[0] is None or (a[1] and b[1]) or (kind == "Sub" and b[1]):
        return None, False
    low, high = (b[0][0], b[0][1]) if kind != "Sub" else (-b[0][1], -b[0][0])
    return (a[0][0] + low, a[0][1] + high), a[1] or b[1]
