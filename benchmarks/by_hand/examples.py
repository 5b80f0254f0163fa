"""Compares an example of Switchyard with scripts by hand: same rows, same network, same batches and early stopping.

The example runs once with both trainers; then each script trains on the rows of its splits, in a process of its own. Seconds of
an epoch are the mean over all but the first, in which frameworks compile; ours include a checkpoint after each epoch.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = ("tensorflow", "pytorch")
SPLITS = ("train", "eval", "test")
BATCH, RATE, PATIENCE = 32, 0.001, 5

# Features by name and labels.
Arrays = tuple[dict[str, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Example:
    """An example by hand.

    Attributes:
        name: its folder in `pipelines/examples`, also the module of its script.
        metric: `auc` or `accuracy`.
        epochs: at most.
        arrays: maps the rows of the splits to arrays.
        in_pytorch: returns a module that maps features to logits.
        in_keras: the same network in Keras.
    """

    name: str
    metric: str
    epochs: int
    arrays: Callable[[Mapping[str, pd.DataFrame]], dict[str, Arrays]]
    in_pytorch: Callable[[], Any]
    in_keras: Callable[[], Any]


def main(example: Example) -> None:
    """Compares, and prints a line per framework."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each side, of which the medians are compared (1)")
    parser.add_argument("--side", choices=FRAMEWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(_by_hand(example, options.side, options.folder, options.seed)))
        return
    print(f"{example.name}: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of {options.seeds}")
    ours: dict[str, list[dict[str, float]]] = {f: [] for f in FRAMEWORKS}
    theirs: dict[str, list[dict[str, float]]] = {f: [] for f in FRAMEWORKS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(42, 42 + options.seeds):
            for framework, found in _ours(example, Path(folder) / "workspace", seed).items():
                ours[framework].append(found)
            _write_splits(Path(folder))
            for framework in FRAMEWORKS:
                theirs[framework].append(_in_a_process(example, framework, Path(folder), seed))
    print(
        f"{'':12}{example.metric:>10}{'by hand':>10}{'difference':>12}{'s an epoch':>12}{'by hand':>10}{'ratio':>8}{'epochs':>12}"
    )
    for framework in FRAMEWORKS:
        a, b = _median(ours[framework]), _median(theirs[framework])
        print(
            f"{framework:12}{a['metric']:10.4f}{b['metric']:10.4f}{a['metric'] - b['metric']:12.4f}{a['epoch']:12.3f}"
            f"{b['epoch']:10.3f}{a['epoch'] / b['epoch']:8.2f}{a['epochs']:7.0f} / {b['epochs']:.0f}"
        )


def _median(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.median([each[name] for each in found])) for name in found[0]}


def _ours(example: Example, workspace: Path, seed: int) -> dict[str, dict[str, float]]:
    """Runs the example; returns framework -> metric of the test split, seconds of an epoch, epochs."""
    import mlflow

    command = [sys.executable, "-m", "switchyard", "run", f"pipelines/examples/{example.name}/pipeline.yaml", "--json"]
    command += ["--workspace", str(workspace), "--trainer", "tensorflow", "--trainer", "pytorch"]
    command += ["--set", f"trainer.hyperparameters.seed={seed}", "--set", "evaluation.improvement=null"]
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    result = json.loads(done.stdout.splitlines()[-1])
    client = mlflow.MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    parent = f"tags.mlflow.parentRunId = '{result['mlflow_run_id']}'"
    runs = {r.info.run_name: r.info.run_id for r in client.search_runs([result["mlflow_experiment_id"]], parent)}
    found = {}
    for framework in FRAMEWORKS:
        history = client.get_metric_history(runs[f"training_{framework}"], "val_loss")
        ends = sorted(m.timestamp / 1000 for m in history)
        found[framework] = {"metric": result["models"][framework]["metrics"][example.metric], **_seconds(ends)}
    return found


def _seconds(ends: list[float]) -> dict[str, float]:
    """Returns the number of epochs and the mean seconds of all but the first, from the times at which they ended."""
    return {"epoch": (ends[-1] - ends[0]) / (len(ends) - 1), "epochs": len(ends)}


def _write_splits(folder: Path) -> None:
    """Writes the rows of each split as the ingest stage of the run has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from switchyard.components.data.summary import split_files
    from switchyard.components.data.tfrecords import read_batches

    [examples] = (folder / "workspace" / "artifacts" / "ingest" / "examples").iterdir()
    for split in SPLITS:
        batches = [batch for file in split_files(str(examples), split) for batch in read_batches(file)]
        pq.write_table(pa.Table.from_batches(batches), folder / f"{split}.parquet")


def _in_a_process(example: Example, framework: str, folder: Path, seed: int) -> dict[str, float]:
    command = [sys.executable, "-m", f"benchmarks.by_hand.{example.name}"]
    command += ["--side", framework, "--seed", str(seed), "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _environment() -> dict[str, str]:
    ours = {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", "TF_CPP_MIN_LOG_LEVEL": "2", "SWITCHYARD_WARM": "0"}
    return {**os.environ, **ours}


def _by_hand(example: Example, framework: str, folder: Path, seed: int) -> dict[str, float]:
    """Trains without Switchyard; returns the metric of the test split, seconds of an epoch, epochs."""
    data = example.arrays({split: pd.read_parquet(folder / f"{split}.parquet") for split in SPLITS})
    fit = fit_keras if framework == "tensorflow" else fit_pytorch
    logits, ends = fit(example, data, seed)
    labels = data["test"][1]
    if example.metric == "accuracy":
        return {"metric": float((logits.argmax(axis=1) == labels).mean()), **_seconds(ends)}
    from sklearn.metrics import roc_auc_score

    return {"metric": float(roc_auc_score(labels, logits[:, 0])), **_seconds(ends)}


def fit_pytorch(example: Example, data: Mapping[str, Arrays], seed: int) -> tuple[np.ndarray, list[float]]:
    """Returns the logits of the test split by the best epoch, (n, outputs), and when each epoch ended."""
    import torch
    from torch.nn import functional

    def loss(model: Any, features: Mapping[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        logits = model(features)
        if logits.shape[1] == 1:
            return functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
        return functional.cross_entropy(logits, labels)

    torch.manual_seed(seed)
    tensors = {s: ({n: torch.from_numpy(v) for n, v in x.items()}, torch.from_numpy(y)) for s, (x, y) in data.items()}
    (train, labels), (held, held_labels) = tensors["train"], tensors["eval"]
    model = example.in_pytorch()
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    best, weights, waited, ends = math.inf, copy.deepcopy(model.state_dict()), 0, []
    for _ in range(example.epochs):
        model.train()
        for rows in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            loss(model, {n: v[rows] for n, v in train.items()}, labels[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            value = float(loss(model, held, held_labels))
        ends.append(time.time())
        waited += 1
        if value < best:
            best, weights, waited = value, copy.deepcopy(model.state_dict()), 0
        if waited == PATIENCE:
            break
    model.load_state_dict(weights)
    model.eval()
    with torch.no_grad():
        return model(tensors["test"][0]).numpy(), ends


def fit_keras(example: Example, data: Mapping[str, Arrays], seed: int) -> tuple[np.ndarray, list[float]]:
    """Returns the logits of the test split by the best epoch, (n, outputs), and when each epoch ended."""
    import keras

    keras.utils.set_random_seed(seed)
    model, ends = example.in_keras(), []
    losses = keras.losses
    one = model.output_shape[1] == 1
    loss = losses.BinaryCrossentropy(from_logits=True) if one else losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE), loss)
    model.fit(
        *data["train"],
        batch_size=BATCH,
        epochs=example.epochs,
        validation_data=data["eval"],
        verbose=0,
        callbacks=[
            keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.time())),
        ],
    )
    return np.asarray(model.predict(data["test"][0], verbose=0)), ends
