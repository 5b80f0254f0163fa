"""The network in Keras; `torch_model.py` is the same one in PyTorch. Its sizes: `model_parameters` in pipeline.yaml."""

from keras import Input, Model, layers, ops


def build_model(spec):
    """Returns features -> logits, (B, spec.outputs): convolutions over pictures, beside the other columns, then dense layers."""
    # Names by position, since Keras refuses some characters that columns may have.
    inputs = {feature.name: Input(feature.shape, dtype=feature.dtype, name=f"f{i}") for i, feature in enumerate(spec.features)}
    parts = [layers.Flatten()(encoded(inputs[f.name], f, spec.parameters["filters"])) for f in spec.features]
    x = layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    x = layers.Dropout(spec.parameters["dropout"])(layers.Dense(spec.parameters["hidden"], activation="relu")(x))
    return Model(inputs, layers.Dense(spec.outputs, dtype="float32")(x))


def encoded(value, feature, filters):
    """Returns what a picture shows, the embedding of a word's index, or numbers as they are."""
    if feature.vocabulary_size:
        return layers.Embedding(feature.vocabulary_size, 8)(value)
    x = ops.cast(value, "float32")
    if len(feature.shape) == 3:  # height, width, channels; values from 0 to 1
        side = min(feature.shape[:2])
        while side >= 8:  # each convolution is followed by a halving
            x = layers.MaxPooling2D(2)(layers.Conv2D(filters, 3, padding="same", activation="relu")(x))
            filters, side = min(2 * filters, 128), side // 2
    return x
