"""The sessions example without Switchyard, in plain PyTorch and Keras: AUC of the test split and seconds of an epoch.

Usage: python -m benchmarks.by_hand.sessions [--seeds 3]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.by_hand.examples import Arrays, Example, main

PAGES, SECONDS = 14, 8


def arrays(rows: Mapping[str, pd.DataFrame]) -> dict[str, Arrays]:
    """Returns indices of devices and pages, scaled seconds, masks, and whether the visit ended in an order."""
    train = rows["train"]
    devices = {name: i for i, name in enumerate(sorted({device[0] for device in train["device"]}))}
    pages = {name: i for i, name in enumerate(sorted({page for each in train["pages"] for page in _values(each)}))}
    seconds = np.array([value for each in train["seconds"] for value in _values(each)[-SECONDS:]], np.float64)
    found = {}
    for split, frame in rows.items():
        bag, bag_mask = np.full((len(frame), PAGES), len(pages)), np.zeros((len(frame), PAGES), np.float32)
        last, last_mask = np.zeros((len(frame), SECONDS), np.float32), np.zeros((len(frame), SECONDS), np.float32)
        for i, (names, values) in enumerate(zip(frame["pages"], frame["seconds"], strict=True)):
            kept = [pages.get(name, len(pages)) for name in _values(names)][:PAGES]
            bag[i, : len(kept)], bag_mask[i, : len(kept)] = kept, 1
            scaled = (np.array(_values(values)[-SECONDS:], np.float64) - seconds.mean()) / seconds.std()
            last[i, : len(scaled)], last_mask[i, : len(scaled)] = scaled, 1
        device = np.array([[devices.get(name[0], len(devices))] for name in frame["device"]])
        features = {"device": device, "pages": bag, "pages_mask": bag_mask, "seconds": last, "seconds_mask": last_mask}
        found[split] = features, np.array([int(label[0] == b"yes") for label in frame["ordered"]])
    return found


def _values(cell: Iterable[Any] | None) -> list[Any]:
    return [] if cell is None else list(cell)


def in_pytorch() -> Any:
    """Returns embeddings, that of pages averaged, and two dense layers."""
    import torch
    from torch import nn

    class Sessions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.device, self.pages = nn.Embedding(3, 3), nn.Embedding(11, 5)
            self.layers = nn.Sequential(
                *(nn.Linear(3 + 5 + PAGES + 2 * SECONDS, 64), nn.ReLU(), nn.Dropout(0.1)),
                *(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1)),
            )
            for layer in (self.device, self.pages):
                nn.init.uniform_(layer.weight, -0.05, 0.05)

        def forward(self, features: dict[str, Any]) -> Any:
            mask = features["pages_mask"]
            total = (self.pages(features["pages"]) * mask.unsqueeze(2)).sum(1)
            pages = total / mask.sum(1, keepdim=True).clamp(min=1)
            device = self.device(features["device"][:, 0])
            return self.layers(torch.cat([device, pages, mask, features["seconds"], features["seconds_mask"]], dim=1))

    return Sessions()


def in_keras() -> Any:
    """Returns the same network in Keras."""
    import keras
    from keras import layers, ops

    shapes = {"pages_mask": PAGES, "seconds": SECONDS, "seconds_mask": SECONDS}
    inputs = {name: keras.Input((size,), name=name) for name, size in shapes.items()}
    inputs |= {name: keras.Input((size,), dtype="int64", name=name) for name, size in {"device": 1, "pages": PAGES}.items()}
    mask = inputs["pages_mask"]
    total = ops.sum(layers.Embedding(11, 5)(inputs["pages"]) * ops.expand_dims(mask, 2), axis=1)
    pages = total / ops.maximum(ops.sum(mask, axis=1, keepdims=True), 1.0)
    device = layers.Flatten()(layers.Embedding(3, 3)(inputs["device"]))
    x = layers.Concatenate()([device, pages, mask, inputs["seconds"], inputs["seconds_mask"]])
    for width in (64, 32):
        x = layers.Dropout(0.1)(layers.Dense(width, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(1)(x))


if __name__ == "__main__":
    main(Example("sessions", "auc", 20, arrays, in_pytorch, in_keras))
