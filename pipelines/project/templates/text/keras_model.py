"""The network in Keras; `torch_model.py` is the same one in PyTorch. Its sizes: `model_parameters` in pipeline.yaml."""

from keras import Input, Model, layers, ops


def build_model(spec):
    """Returns features -> logits, (B, spec.outputs): a convolution over the words of each text, beside the other columns."""
    width, filters = spec.parameters["width"], spec.parameters["filters"]
    # Names by position, since Keras refuses some characters that columns may have.
    inputs = {feature.name: Input(feature.shape, dtype=feature.dtype, name=f"f{i}") for i, feature in enumerate(spec.features)}
    parts = [encoded(inputs[feature.name], feature, width, filters) for feature in spec.features]
    x = layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    x = layers.Dropout(spec.parameters["dropout"])(x)
    return Model(inputs, layers.Dense(spec.outputs, dtype="float32")(x))


def encoded(value, feature, width, filters):
    """Returns a feature as (B, n): what three words in a row say at most, the embedding of one word, or numbers as they are."""
    if not feature.vocabulary_size:
        return layers.Flatten()(ops.cast(value, "float32"))
    x = layers.Embedding(feature.vocabulary_size, width)(value)
    if feature.shape == (1,):  # a column whose text is one word to the default features
        return layers.Flatten()(x)
    x = x * ops.expand_dims(ops.cast(value > 0, "float32"), 2)  # 0 is no word
    return layers.GlobalMaxPooling1D()(layers.Conv1D(filters, 3, padding="same", activation="relu")(x))
