"""The photos example without Switchyard, in plain PyTorch and Keras: accuracy of the test split and seconds of an epoch.

Usage: python -m benchmarks.by_hand.photos [--seeds 3]
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.by_hand.examples import Arrays, Example, main


def arrays(rows: Mapping[str, pd.DataFrame]) -> dict[str, Arrays]:
    """Returns the pixels, (n, 8, 8, 1) from 0 to 1, and the digits."""
    found = {}
    for split, frame in rows.items():
        images = [np.asarray(Image.open(io.BytesIO(photo[0])), np.float32) / 255 for photo in frame["photo"]]
        found[split] = {"photo": np.stack(images)[..., np.newaxis]}, np.array([digit[0] for digit in frame["digit"]])
    return found


def in_pytorch() -> Any:
    """Returns a convolution and two dense layers."""
    from torch import nn

    class Photos(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                *(nn.Conv2d(1, 16, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
                *(nn.Linear(256, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1)),
                nn.Linear(32, 10),
            )

        def forward(self, features: dict[str, Any]) -> Any:
            return self.layers(features["photo"].permute(0, 3, 1, 2))

    return Photos()


def in_keras() -> Any:
    """Returns the same network in Keras."""
    import keras
    from keras import layers

    photo = keras.Input((8, 8, 1), name="photo")
    x = layers.MaxPooling2D(2)(layers.Conv2D(16, 3, padding="same", activation="relu")(photo))
    x = layers.Flatten()(x)
    for width in (64, 32):
        x = layers.Dropout(0.1)(layers.Dense(width, activation="relu")(x))
    return keras.Model({"photo": photo}, layers.Dense(10)(x))


if __name__ == "__main__":
    main(Example("photos", "accuracy", 25, arrays, in_pytorch, in_keras))
