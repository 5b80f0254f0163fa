"""An autoencoder in Keras; `torch_model.py` is the same network in PyTorch."""

import keras
from keras import layers, ops


def build_model(spec):
    """Returns readings -> the mean squared error of their reconstruction from a short code, (B, 1)."""
    inputs = {feature.name: keras.Input(feature.shape, name=feature.name) for feature in spec.features}
    readings = layers.Concatenate()(list(inputs.values()))
    x = layers.Dense(16, activation="tanh")(readings)
    x = layers.Dense(spec.parameters["code"])(x)
    x = layers.Dense(16, activation="tanh")(x)
    x = layers.Dense(len(inputs))(x)
    return keras.Model(inputs, ops.mean(ops.square(x - readings), axis=1, keepdims=True))


def build_loss(spec):
    """Returns the loss of each row, which is the model's output; there are no labels."""
    return lambda labels, outputs: outputs[:, 0]
