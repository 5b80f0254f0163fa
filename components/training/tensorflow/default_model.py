"""The default model in Keras. Mirrors `pytorch/default_model.py`."""

from __future__ import annotations

from typing import Any

import keras

from switchyard.components.training.default_model import DROPOUT, HIDDEN, embedding_width, image_filters, is_image
from switchyard.components.training.model_spec import ModelSpec
from switchyard.components.training.start import Start


def default_model(spec: ModelSpec, start: Start | None = None) -> keras.Model:
    """Returns a model with embeddings for vocabularies, convolutions for images, pooled bags, and two dense layers.

    Args:
        spec: the model's spec.
        start: the version that the training starts from, whose embeddings are as wide for any vocabulary.
    """
    # Positional names: Keras derives graph names from them and does not accept slashes.
    inputs = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f"f{i}") for i, f in enumerate(spec.features)}
    parts = []
    for i, feature in enumerate(spec.features):
        value = inputs[feature.name]
        if feature.vocabulary_size:
            name = f"f{i}_embedding"
            width = (start and start.columns(f"{name}/embeddings")) or embedding_width(feature.vocabulary_size)
            value = keras.layers.Embedding(feature.vocabulary_size, width, name=name)(value)
        elif feature.dtype != "float32":
            value = keras.layers.Lambda(lambda x: keras.ops.cast(x, "float32"))(value)
        for filters in image_filters(feature.shape) if is_image(feature.shape) and not feature.vocabulary_size else ():
            value = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(value)
            value = keras.layers.MaxPooling2D(2)(value)
        if feature.mask:
            value = _pooled(value, inputs[feature.mask], feature.pool)
        # Of a thousand columns, a layer each takes longer to trace than all others.
        parts.append(value if len(value.shape) == 2 else keras.layers.Flatten()(value))
    x = keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    for width in HIDDEN:
        x = keras.layers.Dropout(DROPOUT)(keras.layers.Dense(width, activation="relu")(x))
    x = keras.layers.Dense(spec.outputs, dtype="float32")(x)
    return keras.Model(inputs, keras.layers.Reshape(spec.output_shape)(x) if len(spec.output_shape) > 1 else x)


def _pooled(values: Any, mask: Any, pool: str | None) -> Any:
    """Returns the mean or sum of (B, L) or (B, L, width) over the positions of a mask (B, L); 0 of none."""
    values = values if len(values.shape) > 2 else keras.ops.expand_dims(values, 2)
    total = keras.ops.sum(values * keras.ops.expand_dims(mask, 2), axis=1)
    return total / keras.ops.maximum(keras.ops.sum(mask, axis=1, keepdims=True), 1.0) if pool == "mean" else total
