"""A small convolutional network in Keras; `torch_model.py` is the same network in PyTorch."""

import keras
from keras import layers


def build_model(spec):
    """Returns image -> logits, (B, 8, 8, 1) -> (B, 10)."""
    filters = spec.parameters["filters"]
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(filters, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(2 * filters, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Dropout(0.25)(layers.Flatten()(x))
    return keras.Model({"image": image}, layers.Dense(spec.outputs)(x))
