"""The transform graph as a function, without TFX Transform's Keras layer, which is traced several times when it is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf


def transform_function(folder: str) -> tuple[Any, Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """Returns what a SavedModel must track, and the graph's function: raw features -> transformed ones.

    Features that are not given (the label) are zeros or empty; what depends on them must not be used.

    Args:
        folder: `TFTransformOutput.transform_savedmodel_dir`.
    """
    loaded = tf.saved_model.load(folder)
    function = loaded.transform_fn
    (signature, *_), _ = function.structured_input_signature

    def transform(features: Mapping[str, Any]) -> dict[str, Any]:
        rows = tf.shape(_dense_part(next(iter(features.values()))))[0]
        inputs = {name: features[name] if name in features else _absent(spec, rows) for name, spec in signature.items()}
        found: dict[str, Any] = function(*tf.nest.flatten(inputs, expand_composites=True))
        return found

    return loaded, transform


def _dense_part(value: Any) -> tf.Tensor:
    """Returns a tensor with as many rows as a feature: a sparse one's first column of a dense one of its shape."""
    return tf.zeros([value.dense_shape[0], 0]) if isinstance(value, tf.SparseTensor) else value


def _absent(spec: Any, rows: tf.Tensor) -> Any:
    """Returns a feature without values."""
    rest = [size or 1 for size in spec.shape[1:]]
    if isinstance(spec, tf.SparseTensorSpec):
        shape = tf.concat([[tf.cast(rows, tf.int64)], tf.constant(rest, tf.int64)], axis=0)
        return tf.SparseTensor(tf.zeros([0, 1 + len(rest)], tf.int64), tf.zeros([0], spec.dtype), shape)
    return tf.zeros([rows, *rest], spec.dtype)
