"""The `preprocessing_fn` for TFX's Transform: the user's or the default one for the features, plus the label's encoding."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from switchyard.components.errors import UserError, text_of
from switchyard.components.progress import say
from switchyard.components.text.visible import in_a_line
from switchyard.components.transform.index_ranges import note_ranges
from switchyard.components.user_code.loading import blamed, load_function

Tensors = Mapping[str, Any]

# Words beyond the 10,000 most frequent go to the out-of-vocabulary bucket.
VOCABULARY_SIZE = 10_000
# From this number of columns on, progress is reported.
_WIDE = 50


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> dict[str, Any]:
    """Returns the transformed features and the encoded label.

    Args:
        inputs: raw feature -> tensor, dense (B, k) or sparse.
        custom_config: `label`, `classes`, `unusable` (features that the default omits), `code` (None, or path and function of
            the user's `preprocessing_fn(inputs) -> outputs`, which does not receive the label).

    Raises:
        UserError: the user's function failed or did not return a dict of tensors.
    """
    label = custom_config["label"]
    features = {k: v for k, v in inputs.items() if k != label}
    code = custom_config["code"]
    if code is None:
        outputs = default_features({k: v for k, v in features.items() if k not in custom_config["unusable"]})
    else:
        outputs = _users(features, code["path"], code["function"], label)
        note_ranges(outputs)
    if label in inputs:
        outputs[label] = encode_label(_dense(inputs[label]), custom_config["classes"])
    if len(features) >= _WIDE:
        # Most of the time passes afterwards, in Beam, which processes all columns at once.
        say(f"{len(features):,} columns are analyzed and transformed")
    return outputs


def default_features(features: Tensors) -> dict[str, Any]:
    """Returns numbers as z-scores (missing: 0, the mean) and texts as vocabulary indices (unknown: the last index).

    A feature that can be missing gets a second one, `<name>_missing`, float 0 or 1.
    """
    outputs: dict[str, Any] = {}
    for number, (name, value) in enumerate(features.items(), start=1):
        if len(features) >= _WIDE:
            say(f"preparing column {number:,} of {len(features):,}")
        if isinstance(value, tf.SparseTensor):
            outputs[_free(f"{name}_missing", features)] = 1.0 - _dense(
                tf.SparseTensor(value.indices, tf.ones_like(value.values, tf.float32), value.dense_shape)
            )
        if value.dtype == tf.string:
            outputs[name] = tft.compute_and_apply_vocabulary(
                _dense(value), top_k=VOCABULARY_SIZE, num_oov_buckets=1, vocab_filename=f"vocabulary_{len(outputs)}"
            )
        else:
            # In float64: float32 is exact for integers up to 2^24 only and would collapse seconds since 1970 into few values.
            scaled = tft.scale_to_z_score(tf.cast(value, tf.float64), elementwise=_is_wide(value))
            outputs[name] = _dense(tf.cast(scaled, tf.float32))
    return outputs


def encode_label(label: tf.Tensor, classes: list[Any]) -> tf.Tensor:
    """Returns class indices, int64 (B,), in the order of `classes`; for a regression (no classes) float32 (B,)."""
    flat = tf.reshape(label, [-1])
    if not classes:
        return tf.cast(flat, tf.float32)
    return tf.argmax(tf.equal(flat[:, tf.newaxis], tf.constant(classes, dtype=flat.dtype)[tf.newaxis, :]), axis=1)


def _users(features: Tensors, path: str, function: str, label: str) -> dict[str, Any]:
    name = os.path.basename(path)

    def hint(error: BaseException) -> str:
        named = repr(label) in text_of(error)
        about_label = " preprocessing_fn does not receive the label; it is encoded automatically." if named else ""
        return f".{about_label} Features: {in_a_line(features)}."

    with blamed(f"preprocessing: {name}: ", os.path.dirname(path), hint):
        outputs = load_function(path, function)(dict(features))
    if not isinstance(outputs, dict) or not outputs or not all(isinstance(v, tf.Tensor) for v in outputs.values()):
        raise UserError(
            f"preprocessing: {name}: {function} must return a dict of name -> dense tensor, at least one; received {outputs!r}."
        )
    if label in outputs:
        raise UserError(f"preprocessing: {name}: {function} returns a feature named like the label, {label!r}. Rename it.")
    return outputs


def _dense(value: Any) -> tf.Tensor:
    """Returns (B, 1) for a sparse tensor with at most one value per row; a dense tensor unchanged."""
    if not isinstance(value, tf.SparseTensor):
        return value
    default = "" if value.dtype == tf.string else tf.zeros([], value.dtype)
    one = tf.SparseTensor(value.indices, value.values, [value.dense_shape[0], 1])
    return tf.reshape(tf.sparse.to_dense(one, default_value=default), [-1, 1])


def _is_wide(value: Any) -> bool:
    return not isinstance(value, tf.SparseTensor) and value.shape.rank == 2 and (value.shape[1] or 1) > 1


def _free(name: str, taken: Tensors) -> str:
    while name in taken:
        name += "_"
    return name
