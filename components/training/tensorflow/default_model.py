"""The default model in Keras. Mirrors `pytorch/default_model.py`."""

from __future__ import annotations

import keras

from switchyard.components.training.default_model import DROPOUT, HIDDEN, embedding_width, image_filters, is_image
from switchyard.components.training.model_spec import ModelSpec


def default_model(spec: ModelSpec) -> keras.Model:
    """Returns a model with embeddings for vocabularies, convolutions for images, and two dense layers."""
    inputs, parts = {}, []
    for i, feature in enumerate(spec.features):
        # Positional names: Keras derives graph names from them and does not accept slashes.
        inputs[feature.name] = value = keras.Input(feature.shape, dtype=feature.dtype, name=f"f{i}")
        if feature.vocabulary_size:
            value = keras.layers.Embedding(feature.vocabulary_size, embedding_width(feature.vocabulary_size))(value)
        elif feature.dtype != "float32":
            value = keras.layers.Lambda(lambda x: keras.ops.cast(x, "float32"))(value)
        for filters in image_filters(feature.shape) if is_image(feature.shape) and not feature.vocabulary_size else ():
            value = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(value)
            value = keras.layers.MaxPooling2D(2)(value)
        parts.append(keras.layers.Flatten()(value))
    x = keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    for width in HIDDEN:
        x = keras.layers.Dropout(DROPOUT)(keras.layers.Dense(width, activation="relu")(x))
    return keras.Model(inputs, keras.layers.Dense(spec.outputs, dtype="float32")(x))
