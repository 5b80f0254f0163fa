"""Data with many columns, classes, words or slices, and the configs of runs on them, for `scaling.py --many`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from wide_data import write as write_wide


@dataclass(frozen=True)
class Many:
    """What there are many of.

    Attributes:
        size: how many.
        small: how many in the run that it is compared with.
        write: writes the data of a size as a file in a folder, and returns what the config has beside the defaults.
    """

    size: int
    small: int
    write: Callable[[Path, int], dict[str, Any]]


def columns(folder: Path, size: int) -> dict[str, Any]:
    """Writes 2,000 rows of `size` numbers."""
    write_wide(folder / "data.csv", 2000, size)
    return {"data": {"path": str(folder / "data.csv")}, "label": "tipped"}


def classes(folder: Path, size: int) -> dict[str, Any]:
    """Writes 50 rows of each of `size` classes."""
    random = np.random.default_rng(7)
    label = random.permutation(np.repeat(np.arange(size), 50))
    centers = random.normal(size=(size, 8))
    values = (centers[label] + 0.3 * random.normal(size=(len(label), 8))).round(4)
    frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(8)]).assign(kind=[f"class {c}" for c in label])
    frame.to_parquet(folder / "data.parquet", index=False)
    return {"data": {"path": str(folder / "data.parquet")}, "label": "kind", "task": "multiclass"}


def words(folder: Path, size: int) -> dict[str, Any]:
    """Writes as many rows as there are different words, each with one of these and one of 100 frequent ones."""
    random = np.random.default_rng(7)
    chunk = 1_000_000
    with pq.ParquetWriter(folder / "data.parquet", _WORDS) as writer:
        for start in range(0, size, chunk):
            n = min(chunk, size - start)
            frequent = random.integers(0, 100, n)
            found = {
                "word": [f"w{i}" for i in range(start, start + n)],
                "frequent": [f"f{i}" for i in frequent],
                "label": (random.random(n) < np.where(frequent < 50, 0.2, 0.8)).astype(np.int64),
            }
            writer.write_table(pa.table(found, schema=_WORDS))
    return {"data": {"path": str(folder / "data.parquet")}, "label": "label"}


def slices(folder: Path, size: int) -> dict[str, Any]:
    """Writes 1,000 rows for each of `size` values of the column by which the evaluation slices."""
    random = np.random.default_rng(7)
    rows = 1000 * size
    x = random.normal(size=(rows, 4)).round(4)
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(4)])
    frame["shop"] = [f"shop {i}" for i in random.integers(0, size, rows)]
    frame["label"] = (random.random(rows) < 1 / (1 + np.exp(-2 * x[:, 0]))).astype(int)
    frame.to_parquet(folder / "data.parquet", index=False)
    return {"data": {"path": str(folder / "data.parquet")}, "label": "label", "evaluation": {"slices": ["shop"]}}


_WORDS = pa.schema([("word", pa.string()), ("frequent", pa.string()), ("label", pa.int64())])
MANY = {
    "columns": Many(5000, 500, columns),
    "classes": Many(1000, 100, classes),
    "words": Many(10_000_000, 1_000_000, words),
    "slices": Many(100, 10, slices),
}


def document(name: str, folder: Path, size: int) -> dict[str, Any]:
    """Writes the data of a run with `size` of `name`; returns its config."""
    found = MANY[name].write(folder, size)
    data = {**found.pop("data"), "splits": {"train": 2, "eval": 1}}
    trainer = {"framework": "tensorflow", "hyperparameters": {"epochs": 1, "batch_size": 1024}}
    return {"name": f"many_{name}", "data": data, "trainer": trainer, **found}
