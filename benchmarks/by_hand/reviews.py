"""The reviews example without Switchyard, in plain PyTorch and Keras: AUC of the test split and seconds of an epoch.

Usage: python -m benchmarks.by_hand.reviews [--seeds 3]
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.by_hand.examples import Arrays, Example, main

WORDS, LENGTH, WIDTH, FILTERS = 2048, 32, 16, 32


def arrays(rows: Mapping[str, pd.DataFrame]) -> dict[str, Arrays]:
    """Returns word indices, (n, 32), 0 where a review has no more words, and whether it is positive."""
    found = {}
    for split, frame in rows.items():
        words = np.zeros((len(frame), LENGTH), np.int64)
        for row, review in zip(words, frame["review"], strict=True):
            each = re.findall(r"\w+", review[0].decode().lower())[:LENGTH]
            row[: len(each)] = [1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in each]
        found[split] = {"words": words}, np.array([int(label[0] == b"yes") for label in frame["positive"]])
    return found


def in_pytorch() -> Any:
    """Returns an embedding and a convolution over three words."""
    from torch import nn

    class Reviews(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(WORDS, WIDTH)
            nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
            self.convolution = nn.Conv1d(WIDTH, FILTERS, 3, padding="same")
            self.layers = nn.Sequential(nn.Dropout(0.25), nn.Linear(FILTERS, 1))

        def forward(self, features: dict[str, Any]) -> Any:
            words = features["words"]
            x = self.embedding(words) * (words > 0).unsqueeze(2)
            return self.layers(self.convolution(x.transpose(1, 2)).relu().mean(dim=2))

    return Reviews()


def in_keras() -> Any:
    """Returns the same network in Keras."""
    import keras
    from keras import layers, ops

    words = keras.Input((LENGTH,), dtype="int64", name="words")
    x = layers.Embedding(WORDS, WIDTH)(words) * ops.expand_dims(ops.cast(words > 0, "float32"), 2)
    x = layers.Conv1D(FILTERS, 3, padding="same", activation="relu")(x)
    x = layers.Dropout(0.25)(layers.GlobalAveragePooling1D()(x))
    return keras.Model({"words": words}, layers.Dense(1)(x))


if __name__ == "__main__":
    main(Example("reviews", "auc", 20, arrays, in_pytorch, in_keras))
