"""A small convolution over words in Keras; `torch_model.py` is the same network in PyTorch."""

import keras
from keras import layers, ops


def build_model(spec):
    """Returns words -> logits, (B, length) -> (B, outputs); the index 0 is no word."""
    [feature] = spec.features
    width, filters = spec.parameters["width"], spec.parameters["filters"]
    words = keras.Input(feature.shape, dtype="int64", name=feature.name)
    present = ops.expand_dims(ops.cast(words > 0, "float32"), 2)
    x = layers.Embedding(feature.vocabulary_size, width)(words) * present
    x = layers.Conv1D(filters, 3, padding="same", activation="relu")(x)
    x = layers.Dropout(0.25)(layers.GlobalAveragePooling1D()(x))
    return keras.Model({feature.name: words}, layers.Dense(spec.outputs)(x))
