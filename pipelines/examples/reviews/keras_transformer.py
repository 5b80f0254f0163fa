"""The network of `transformer/`, a BERT, in plain Keras layers; its sizes are read from the same `config.json`."""

import json
from pathlib import Path

import keras
from keras import layers, ops

CONFIG = json.loads((Path(__file__).parent / "transformer" / "config.json").read_text())


def build_model(spec):
    """Returns tokens -> logits, (B, length) -> (B, outputs)."""
    features = {feature.name: feature for feature in spec.features}
    ids, mask = (keras.Input(features[n].shape, dtype="int64", name=n) for n in ("input_ids", "attention_mask"))
    positions = ops.cumsum(ops.ones_like(ids), axis=1) - 1
    x = embedding(CONFIG["vocab_size"])(ids) + embedding(CONFIG["max_position_embeddings"])(positions)
    x = dropout()(normalized(x + embedding(CONFIG["type_vocab_size"])(ops.zeros_like(ids))))
    for _ in range(CONFIG["num_hidden_layers"]):
        attention = layers.MultiHeadAttention(
            CONFIG["num_attention_heads"],
            CONFIG["hidden_size"] // CONFIG["num_attention_heads"],
            dropout=CONFIG["attention_probs_dropout_prob"],
            kernel_initializer=initializer(),
        )
        x = normalized(x + dropout()(attention(x, x, attention_mask=ops.cast(mask, "bool")[:, None])))
        inner = dense(CONFIG["intermediate_size"], activation="gelu")(x)
        x = normalized(x + dropout()(dense(CONFIG["hidden_size"])(inner)))
    pooled = dense(CONFIG["hidden_size"], activation="tanh")(x[:, 0])
    return keras.Model({"input_ids": ids, "attention_mask": mask}, dense(spec.outputs)(dropout()(pooled)))


def initializer():
    """Returns the initializer of all weights."""
    return keras.initializers.RandomNormal(stddev=CONFIG["initializer_range"])


def embedding(size):
    """Returns an embedding of `size` indices."""
    return layers.Embedding(size, CONFIG["hidden_size"], embeddings_initializer=initializer())


def dense(width, **options):
    """Returns a dense layer."""
    return layers.Dense(width, kernel_initializer=initializer(), **options)


def dropout():
    """Returns a dropout layer."""
    return layers.Dropout(CONFIG["hidden_dropout_prob"])


def normalized(x):
    """Returns the normalized activations."""
    return layers.LayerNormalization(epsilon=CONFIG["layer_norm_eps"])(x)
