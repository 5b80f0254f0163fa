"""The examples that a trainer reads, as every framework receives them. Standard library and NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np

from switchyard.components.data.feature_spec import FeatureSpec

# Features by name, shape (B, *feature shape); labels, shape (B,); and, if the examples are weighted, weights, float32 (B,).
Batch = tuple[Any, ...]


@dataclass(frozen=True)
class Shard:
    """One worker's part of every batch: its rows `index`, `index + count`, ... Shards are disjoint and cover the batch.

    Attributes:
        index: index of the worker, from 0; the first one reports, saves and exports.
        count: number of workers.
    """

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the first worker, which reports for all."""
        return self.index == 0

    def rows(self, batch: int) -> int:
        """Returns the number of a batch's rows in this shard."""
        return max(0, -(-(batch - self.index) // self.count))


WHOLE = Shard()


@dataclass(frozen=True)
class Block:
    """Features stored side by side in one array (rows, width): all scalars of one dtype, or one wider feature.

    Attributes:
        dtype: `float32` or `int64`.
        names: names of the features, from left to right.
        shape: shape of each feature, without the batch dimension.
    """

    dtype: str
    names: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of columns of one feature."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Number of columns of all features."""
        return self.size * len(self.names)

    def features(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the features of a block's array, shape (rows, width), by name, as views of shape (rows, *shape)."""
        parts = np.split(array, len(self.names), axis=1) if len(self.names) > 1 else [array]
        return {name: part.reshape(-1, *self.shape) for name, part in zip(self.names, parts, strict=True)}


def blocks(features: Sequence[FeatureSpec]) -> tuple[Block, ...]:
    """Returns the block layout of the features."""
    scalars: dict[str, list[str]] = {}
    for feature in features:
        if feature.shape == (1,):
            scalars.setdefault(feature.dtype, []).append(feature.name)
    wide = [Block(dtype, tuple(names), (1,)) for dtype, names in sorted(scalars.items())]
    return (*wide, *(Block(f.dtype, (f.name,), f.shape) for f in features if f.shape != (1,)))


@dataclass(frozen=True)
class Stretch:
    """Consecutive batches, passed to a framework in one call.

    Attributes:
        arrays: one array per block, shape (rows, width).
        labels: shape (rows,).
        sizes: number of rows of each batch.
        weights: float32 (rows,), if the examples are weighted.
    """

    arrays: tuple[np.ndarray, ...]
    labels: np.ndarray
    sizes: tuple[int, ...]
    weights: np.ndarray | None = None

    @property
    def of_rows(self) -> tuple[np.ndarray, ...]:
        """The labels, then the weights if there are any."""
        return (self.labels,) if self.weights is None else (self.labels, self.weights)


def batches_of(stretches: Iterable[Stretch], blocks: Sequence[Block]) -> Iterator[Batch]:
    """Yields the batches of stretches, each a dict of features, the labels and any weights."""
    for stretch in stretches:
        for start, end in pairwise(accumulate(stretch.sizes, initial=0)):
            features: dict[str, np.ndarray] = {}
            for block, array in zip(blocks, stretch.arrays, strict=True):
                features |= block.features(array[start:end])
            yield features, *(values[start:end] for values in stretch.of_rows)


# Indices of the rows of an epoch, shape (rows,), int64, one batch after the other; and the number of rows of each batch.
Order = tuple[np.ndarray, tuple[int, ...]]


class ExampleSource(Protocol):
    """One split of transformed examples, shared by all trainers.

    Labels are int64 class indices, or float32 values for a regression. Without `seed` rows keep the order of the files; with it
    the order depends only on `seed` and `epoch`, not on the shard. Of each batch of `batch_size` rows a shard receives its part.
    A shard without a row in the last batch receives the batch's first row as padding, which must not count.

    With `trainer.sample_weight` each row has a weight of 0 or more: that of its column divided by the mean over the split, so
    that the weights of a split have the mean 1, and a weighted mean is the sum over the rows divided by their number.
    """

    @property
    def rows(self) -> int:
        """Number of examples."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Layout of the features in a stretch's arrays."""

    @property
    def weighted(self) -> bool:
        """Whether the rows have weights."""

    def batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        """Yields the batches of one epoch: features by name, shape (B, *feature shape), labels, shape (B,), any weights, (B,)."""

    def stretches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Iterator[Stretch]:
        """Yields the same batches in groups: a hundred scalar features are one array, which the framework may split."""

    @property
    def resident(self) -> tuple[tuple[np.ndarray, ...], np.ndarray] | None:
        """All rows, if the split is held in memory: one array per block, shape (rows, width), and labels; else None."""

    @property
    def resident_weights(self) -> np.ndarray | None:
        """The weights of the rows of `resident`, float32 (rows,); None without weights."""

    def order(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Order:
        """Returns the rows of `resident` that make the same batches, so that a framework may gather them on the device."""
