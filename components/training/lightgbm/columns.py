"""The table that LightGBM reads: one row per example, all features side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.training.example_source import ExampleSource

_CHUNK_BYTES = 64 << 20
# Whole numbers up to here are exact in float32.
_EXACT = 1 << 24


def column_order(source: ExampleSource, features: Sequence[FeatureSpec]) -> list[FeatureSpec]:
    """Returns the features in the order of a source's arrays."""
    specs = {f.name: f for f in features}
    return [specs[name] for block in source.blocks for name in block.names]


def categorical(ordered: Sequence[FeatureSpec]) -> list[int]:
    """Returns the columns that hold vocabulary indices, which have no order."""
    of_column = [f for f in ordered for _ in range(int(np.prod(f.shape)))]
    return [i for i, f in enumerate(of_column) if f.vocabulary_size]


def read(source: ExampleSource, ordered: Sequence[FeatureSpec]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Returns a split in the order of its files: a table (B, columns), float32 if exact, labels (B,), any weights (B,)."""
    exact = all(f.dtype == "float32" or (f.vocabulary_size or _EXACT + 1) <= _EXACT for f in ordered)
    width = sum(block.width for block in source.blocks)
    rows = np.empty((source.rows, width), np.float32 if exact else np.float64)
    of_rows, start = [], 0
    for stretch in source.stretches(max(1, _CHUNK_BYTES // (4 * width))):
        np.concatenate(stretch.arrays, axis=1, out=rows[start : start + len(stretch.labels)])
        of_rows.append(stretch.of_rows)
        start += len(stretch.labels)
    labels, *weights = (np.concatenate(values) for values in zip(*of_rows, strict=True))
    return rows, labels, weights[0] if weights else None


def table(features: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Returns named features, each of shape (B, *feature shape), as a float64 table (B, columns)."""
    rows = len(features[names[0]])
    return np.concatenate([features[n].reshape(rows, -1) for n in names], axis=1, dtype=np.float64)
