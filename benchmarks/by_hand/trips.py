"""The trips' whole job as a team would write it: read, split, scale, train one epoch, metrics by slice, save.

python -m benchmarks.by_hand.trips pytorch trips.csv FOLDER

It uses nothing of Switchyard's: Arrow's CSV reader, a loop in PyTorch or Keras' `fit`, scikit-learn's metrics. FOLDER gets the
model, what it needs of the training split (means, deviations, vocabularies) and the metrics, which are also printed as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv

NUMBERS, WORDS, LABEL, SLICE = ("miles", "fare", "seconds", "hour"), ("payment", "company"), "tipped", "payment"
BATCH, RATE, WIDTH = 64, 0.001, 8

# Numbers (rows, 4), float32; column -> indices, int64 (rows,).
Inputs = tuple[np.ndarray, dict[str, np.ndarray]]


def main(framework: str, data: Path, folder: Path) -> None:
    """Does the job and prints the metrics."""
    table = pyarrow.csv.read_csv(data)
    held_out = np.random.default_rng(0).random(table.num_rows) < 1 / 3
    columns = {name: table[name].to_numpy() for name in (*NUMBERS, *WORDS, LABEL)}
    constants = _constants({name: values[~held_out] for name, values in columns.items()})
    (train, labels), (test, truth) = (
        (_inputs({name: values[rows] for name, values in columns.items()}, constants), columns[LABEL][rows])
        for rows in (~held_out, held_out)
    )
    folder.mkdir(parents=True, exist_ok=True)
    scores = (_pytorch if framework == "pytorch" else _keras)(train, labels, test, constants["words"], folder)
    slices = {"": np.ones(len(truth), bool)} | {v: columns[SLICE][held_out] == v for v in constants["words"][SLICE]}
    metrics = {name: _metrics(truth[rows], scores[rows]) for name, rows in slices.items()}
    (folder / "constants.json").write_text(json.dumps(constants), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    print(json.dumps({"rows": len(truth), "metrics": metrics.pop(""), "slices": metrics}))


def _constants(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    words = {name: np.unique(columns[name]).tolist() for name in WORDS}
    numbers = {name: [float(columns[name].mean()), float(columns[name].std())] for name in NUMBERS}
    return {"numbers": numbers, "words": words}


def _inputs(columns: dict[str, np.ndarray], constants: dict[str, Any]) -> Inputs:
    scaled = [(columns[name] - mean) / deviation for name, (mean, deviation) in constants["numbers"].items()]
    indices = {}
    for name, words in constants["words"].items():
        found = np.searchsorted(words, columns[name].astype(str))
        known = np.take(words, found, mode="clip") == columns[name]
        indices[name] = np.where(known, found, len(words))
    return np.stack(scaled, axis=1).astype(np.float32), indices


def _metrics(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    decided = scores > 0.5
    return {
        "auc": float(metrics.roc_auc_score(truth, scores)),
        "average_precision": float(metrics.average_precision_score(truth, scores)),
        "accuracy": float(metrics.accuracy_score(truth, decided)),
        "precision": float(metrics.precision_score(truth, decided, zero_division=0)),
        "recall": float(metrics.recall_score(truth, decided)),
        "loss": float(metrics.log_loss(truth, scores, labels=[0, 1])),
    }


def _pytorch(train: Inputs, labels: np.ndarray, test: Inputs, words: dict[str, list[str]], folder: Path) -> np.ndarray:
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embeddings = nn.ModuleList(nn.Embedding(len(known) + 1, WIDTH) for known in words.values())
            widths = len(NUMBERS) + WIDTH * len(words)
            self.layers = nn.Sequential(nn.Linear(widths, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

        def forward(self, numbers: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
            embedded = [embedding(indices[:, i]) for i, embedding in enumerate(self.embeddings)]
            return self.layers(torch.cat([numbers, *embedded], dim=1))[:, 0]

    def tensors(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(inputs[0]), torch.from_numpy(np.stack([inputs[1][name] for name in words], axis=1))

    torch.manual_seed(42)
    torch.set_num_threads(1)  # faster on so small a network
    model, loss = Network(), nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    (numbers, indices), targets = tensors(train), torch.from_numpy(labels.astype(np.float32))
    for rows in torch.randperm(len(targets)).split(BATCH):
        optimizer.zero_grad()
        loss(model(numbers[rows], indices[rows]), targets[rows]).backward()
        optimizer.step()
    torch.save(model.state_dict(), folder / "model.pt")
    with torch.inference_mode():
        return torch.sigmoid(model(*tensors(test))).numpy().astype(np.float64)


def _keras(train: Inputs, labels: np.ndarray, test: Inputs, words: dict[str, list[str]], folder: Path) -> np.ndarray:
    import keras
    from keras import layers

    def named(inputs: Inputs) -> dict[str, np.ndarray]:
        return {"numbers": inputs[0], **inputs[1]}

    keras.utils.set_random_seed(42)
    inputs = {"numbers": keras.Input((len(NUMBERS),), name="numbers")}
    inputs |= {name: keras.Input((), dtype="int64", name=name) for name in words}
    embedded = [layers.Embedding(len(known) + 1, WIDTH)(inputs[name]) for name, known in words.items()]
    hidden = layers.Dense(64, activation="relu")(layers.Concatenate()([inputs["numbers"], *embedded]))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(32, activation="relu")(hidden)))
    model.compile(keras.optimizers.Adam(RATE), keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)
    model.fit(named(train), labels.astype(np.float32)[:, None], batch_size=BATCH, epochs=1, verbose=0)
    model.save(folder / "model.keras")
    logits = model.predict(named(test), batch_size=8192, verbose=0)[:, 0].astype(np.float64)
    return 1 / (1 + np.exp(-logits))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
