"""Data sets of the tasks, made by seed: the same rows for Switchyard's tests and for the scripts without Switchyard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

SPLITS = {"train": 0, "eval": 1, "test": 2}
FEATURES = ["x1", "x2", "x3", "city"]
CITIES = ["basel", "bern", "chur"]


def features(rows: int, random: np.random.Generator) -> pd.DataFrame:
    """Returns three standard normal columns and one of texts."""
    frame = pd.DataFrame({f"x{i}": random.normal(size=rows).round(4) for i in (1, 2, 3)})
    return frame.assign(city=random.choice(CITIES, rows))


def quantile(rows: int, random: np.random.Generator) -> pd.DataFrame:
    """Returns rows whose label `y` has a spread that depends on the features."""
    frame = features(rows, random)
    spread = 0.2 + 0.4 * np.abs(frame.x2) + 0.5 * (frame.city == "chur")
    return frame.assign(y=(frame.x1 - 0.5 * frame.x3 + spread * random.normal(size=rows)).round(4))


def multioutput(rows: int, random: np.random.Generator) -> pd.DataFrame:
    """Returns rows with the labels `power` and `heat`, which share a part of their noise."""
    frame = features(rows, random)
    shared = 0.3 * random.normal(size=rows)
    power = frame.x1 - 0.5 * frame.x3 + (frame.city == "chur") + shared + 0.3 * random.normal(size=rows)
    heat = frame.x2 * frame.x3 - 0.5 * frame.x1 + shared + 0.2 * random.normal(size=rows)
    return frame.assign(power=power.round(4), heat=heat.round(4))


def multilabel(rows: int, random: np.random.Generator) -> pd.DataFrame:
    """Returns rows with the labels `late`, `damaged` and `returned`, 0 or 1; a twelfth of the rows has `damaged`."""
    frame = features(rows, random)
    logits = {
        "late": 2 * frame.x1 - (frame.city == "basel"),
        "damaged": 2 * frame.x2 - 4,
        "returned": 1.5 * frame.x1 * frame.x3 - 0.5,
    }
    return frame.assign(**{name: (random.random(rows) < 1 / (1 + np.exp(-z))).astype(int) for name, z in logits.items()})


def ranking(rows: int, random: np.random.Generator) -> pd.DataFrame:
    """Returns rows of queries of about 10 rows, in no order, whose `relevance` is 0 to 3."""
    frame = features(rows, random)
    utility = frame.x1 - 0.5 * frame.x3 + (frame.city == "chur") + 0.5 * random.normal(size=rows)
    names = random.permutation(10**6)[: rows // 10]
    query = [f"q{name}" for name in names[random.integers(0, len(names), rows)]]
    return frame.assign(query_id=query, relevance=np.clip(np.floor(utility), 0, 3).astype(int))


TASKS = {"quantile": quantile, "multioutput": multioutput, "multilabel": multilabel, "ranking": ranking}
# Task -> its label columns.
LABELS = {
    "quantile": ["y"],
    "multioutput": ["power", "heat"],
    "multilabel": ["late", "damaged", "returned"],
    "ranking": ["relevance"],
}


def frames(task: str, rows: int = 6000) -> dict[str, pd.DataFrame]:
    """Returns the splits: 4/6 of the rows train, 1/6 each eval and test."""
    shares = {"train": rows * 4 // 6, "eval": rows // 6, "test": rows // 6}
    return {split: TASKS[task](shares[split], np.random.default_rng([7, seed])) for split, seed in SPLITS.items()}


def write(task: str, folder: Path, rows: int = 6000) -> dict[str, str]:
    """Writes the splits as CSV into a folder; returns them as `data.splits`."""
    for split, frame in frames(task, rows).items():
        frame.to_csv(folder / f"{split}.csv", index=False)
    return {split: str(folder / f"{split}.csv") for split in SPLITS}


def arrays(task: str, rows: int = 6000) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns split -> features (n, 6), scaled by the training split and one-hot, and labels (n, labels), float32."""
    found = frames(task, rows)
    numbers = found["train"][["x1", "x2", "x3"]]
    mean, deviation = numbers.mean(), numbers.std(ddof=0)
    result = {}
    for split, frame in found.items():
        cities = np.stack([frame.city == c for c in CITIES], axis=1)
        inputs = np.hstack([(frame[["x1", "x2", "x3"]] - mean) / deviation, cities])
        result[split] = inputs.astype(np.float32), frame[LABELS[task]].to_numpy(np.float32)
    return result
