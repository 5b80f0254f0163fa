"""The network in Keras; `torch_model.py` is the same one in PyTorch. Its sizes: `model_parameters` in pipeline.yaml."""

import math

from keras import Input, Model, layers, ops


def build_model(spec):
    """Returns features -> logits, (B, spec.outputs): embeddings of words beside the numbers, then dense layers."""
    # Names by position, since Keras refuses some characters that columns may have.
    inputs = {feature.name: Input(feature.shape, dtype=feature.dtype, name=f"f{i}") for i, feature in enumerate(spec.features)}
    parts = [layers.Flatten()(encoded(inputs[feature.name], feature)) for feature in spec.features]
    x = layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    for width in spec.parameters["hidden"]:
        x = layers.Dropout(spec.parameters["dropout"])(layers.Dense(width, activation="relu")(x))
    return Model(inputs, layers.Dense(spec.outputs, dtype="float32")(x))


def encoded(value, feature):
    """Returns the embedding of a word's index in its vocabulary; numbers as they are, z-scores by default."""
    if feature.vocabulary_size:
        return layers.Embedding(feature.vocabulary_size, embedding_width(feature.vocabulary_size))(value)
    return ops.cast(value, "float32")


def embedding_width(vocabulary_size):
    """Returns a width that grows slowly with the vocabulary: 2 to 32."""
    return max(2, min(32, math.ceil(1.6 * vocabulary_size**0.4)))
