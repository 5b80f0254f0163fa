"""The model of both sides: `build_model` is what Switchyard takes, `network` what the stock pipeline's code uses too."""

import keras
from keras import layers

NUMBERS = ("miles", "fare", "seconds", "hour")
WORDS = ("payment", "company")


def network(vocabulary_sizes):
    """Returns features, each (B, 1), -> logits (B, 1)."""
    inputs = {name: keras.Input((1,), name=name) for name in NUMBERS}
    inputs |= {name: keras.Input((1,), dtype="int64", name=name) for name in WORDS}
    parts = [inputs[n] for n in NUMBERS]
    parts += [layers.Flatten()(layers.Embedding(vocabulary_sizes[n], 8)(inputs[n])) for n in WORDS]
    hidden = layers.Dense(32, activation="relu")(layers.Dense(64, activation="relu")(layers.Concatenate()(parts)))
    return keras.Model(inputs, layers.Dense(1)(hidden))


def build_model(spec):
    """Returns the network for Switchyard."""
    return network({f.name: f.vocabulary_size for f in spec.features if f.vocabulary_size})
