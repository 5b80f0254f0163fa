"""The input of every trainer: transformed examples as NumPy batches, from memory if they fit, else through a window.

This module imports no framework and parses nothing: columns are memory-mapped (see `columns`), and a batch selects rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np

from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.training.columns import WEIGHTS, Columns, column_files, joined, layout_of, nbytes, read_columns
from switchyard.components.training.example_source import WHOLE, Batch, Block, Order, Shard, Stretch, batches_of, blocks
from switchyard.components.training.model_spec import ModelSpec

# Maximum size of a split that is held in memory.
MEMORY_BYTES = 1 << 30
# For larger splits two windows of `_PIECES` pieces are in memory: the current one and the prefetched next one.
WINDOW_BYTES = 256 << 20
_PIECES = 64
# Maximum rows and bytes of a stretch, which holds at least one batch.
_STRETCH_ROWS, _STRETCH_BYTES = 4096, 32 << 20


class Examples:
    """An `ExampleSource` over columns that are in memory or memory-mapped.

    A split larger than `memory_bytes` is shuffled in two levels: the pieces (runs of consecutive rows), then the rows within each
    window of pieces. The order does not depend on the number of files or on the shard.

    Args:
        layout: the blocks, `WEIGHTS` last if the examples are weighted.
        parts: the rows, in order.
        memory_bytes: maximum size of a split that is shuffled as a whole.
        window_bytes: size of a window, which is shuffled as a whole.
    """

    def __init__(
        self,
        layout: Sequence[Block],
        parts: Sequence[Columns],
        *,
        memory_bytes: int = MEMORY_BYTES,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self.layout = tuple(layout)
        self.weighted = WEIGHTS in self.layout
        self.blocks = tuple(block for block in self.layout if block != WEIGHTS)
        self._parts = list(parts)
        self._starts = list(accumulate((len(labels) for _, labels in self._parts), initial=0))
        self._row_bytes = max(1, sum(map(nbytes, self._parts)) // max(1, self.rows))
        self._in_memory = self._row_bytes * self.rows <= memory_bytes
        self._piece = max(1, window_bytes // _PIECES // self._row_bytes)

    @property
    def rows(self) -> int:
        """See ExampleSource."""
        return self._starts[-1]

    def batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        """See ExampleSource."""
        return batches_of(self.stretches(batch_size, seed=seed, epoch=epoch, shard=shard), self.blocks)

    def stretches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Iterator[Stretch]:
        """See ExampleSource."""
        at_once = max(1, min(_STRETCH_ROWS, _STRETCH_BYTES // self._row_bytes) // batch_size) * batch_size
        carried: Columns | None = None  # remainder of a window, smaller than a batch
        for columns, window in self._windows(seed, epoch):
            order = window
            if carried is not None:
                missing = batch_size - len(carried[1])
                carried, order = joined([carried, _taken(columns, window[:missing])]), window[missing:]
                if len(carried[1]) < batch_size:
                    continue
                yield self._stretch(carried, np.arange(batch_size), batch_size, shard)
                carried = None
            whole = len(order) // batch_size * batch_size
            for start in range(0, whole, at_once):
                yield self._stretch(columns, order[start : min(start + at_once, whole)], batch_size, shard)
            if whole < len(order):
                carried = _taken(columns, order[whole:])
        if carried is not None:
            yield self._stretch(carried, np.arange(len(carried[1])), batch_size, shard)

    @property
    def resident(self) -> Columns | None:
        """See ExampleSource."""
        if not self._in_memory:
            return None
        arrays, labels = self._all
        return arrays[: len(self.blocks)], labels

    @property
    def resident_weights(self) -> np.ndarray | None:
        """See ExampleSource."""
        return self._all[0][-1][:, 0] / self._mean_weight if self.weighted and self._in_memory else None

    def order(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Order:
        """See ExampleSource."""
        random = None if seed is None else np.random.default_rng((seed, epoch))
        return _sharded(shuffled(self.rows, random), batch_size, shard)

    def _windows(self, seed: int | None, epoch: int) -> Iterator[tuple[Columns, np.ndarray]]:
        """Yields rows in memory, and their order."""
        random = None if seed is None else np.random.default_rng((seed, epoch))
        if self._in_memory:
            yield self._all, shuffled(self.rows, random)
            return
        pieces = shuffled(-(-self.rows // self._piece), random)
        windows = [pieces[i : i + _PIECES] for i in range(0, len(pieces), _PIECES)]
        with ThreadPoolExecutor(1, thread_name_prefix="examples") as pool:
            ahead = pool.submit(self._window, windows[0])
            for following in (*windows[1:], None):
                columns = ahead.result()
                if following is not None:
                    ahead = pool.submit(self._window, following)
                yield columns, shuffled(len(columns[1]), random)

    @cached_property
    def _mean_weight(self) -> np.float32:
        total = sum(float(arrays[-1].sum(dtype=np.float64)) for arrays, _ in self._parts)
        return np.float32(total / self.rows)

    def _stretch(self, columns: Columns, order: np.ndarray, batch_size: int, shard: Shard) -> Stretch:
        own, sizes = _sharded(order, batch_size, shard)
        arrays, labels = _taken(columns, own)
        if not self.weighted:
            return Stretch(arrays, labels, sizes)
        return Stretch(arrays[:-1], labels, sizes, arrays[-1][:, 0] / self._mean_weight)

    @cached_property
    def _all(self) -> Columns:
        return joined(self._parts)

    def _window(self, pieces: np.ndarray) -> Columns:
        return joined([part for piece in pieces.tolist() for part in self._read(piece * self._piece)])

    def _read(self, start: int) -> Iterator[Columns]:
        """Yields copies of the piece that starts at a row; memory-mapped data is read here, sequentially."""
        end = min(start + self._piece, self.rows)
        part = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < end:
            first, last = start - self._starts[part], min(end, self._starts[part + 1]) - self._starts[part]
            arrays, labels = self._parts[part]
            yield tuple(a[first:last].copy() for a in arrays), labels[first:last].copy()
            start += last - first
            part += 1


def transformed_examples(folder: Path, split: str) -> Examples:
    """Returns a split of the transform stage's output.

    Args:
        folder: local folder of the artifact.
        split: `train` or `eval`.

    Raises:
        UserError: the artifact has no columns.
        FileNotFoundError: the artifact has no such split.
    """
    return Examples(*split_columns(folder, split))


def split_columns(folder: Path, split: str) -> tuple[tuple[Block, ...], list[Columns]]:
    """Returns the layout and the memory-mapped columns of a split, see `transformed_examples`."""
    layout = layout_of(folder)
    files = column_files(folder, split)
    if not files:
        raise FileNotFoundError(f"there are no transformed examples of the split {split!r} in {folder}")
    return layout, [part for file in files for part in read_columns(file, layout)]


def columns_of(
    features: Mapping[str, np.ndarray], labels: np.ndarray, specs: Sequence[FeatureSpec], weights: np.ndarray | None = None
) -> Columns:
    """Returns named arrays, shape (rows, *feature shape), and any weights, shape (rows,), as columns."""
    rows = len(labels)
    arrays = (np.concatenate([features[n].reshape(rows, -1) for n in b.names], axis=1, dtype=b.dtype) for b in blocks(specs))
    last = () if weights is None else (weights.reshape(rows, 1).astype(WEIGHTS.dtype),)
    return (*arrays, *last), labels


def placeholder_batch(spec: ModelSpec, rows: int) -> dict[str, np.ndarray]:
    """Returns a batch of zeros, to check whether a model matches the spec."""
    return {f.name: np.zeros((rows, *f.shape), dtype=f.dtype) for f in spec.features}


def shuffled(count: int, random: np.random.Generator | None) -> np.ndarray:
    """Returns the numbers below `count`, in order without a generator."""
    return np.arange(count) if random is None else random.permutation(count)


def _taken(columns: Columns, index: np.ndarray) -> Columns:
    arrays, labels = columns
    return tuple(a.take(index, axis=0) for a in arrays), labels.take(index, axis=0)


def _sharded(order: np.ndarray, batch_size: int, shard: Shard) -> Order:
    """Returns a shard's part of the batches of `order`."""
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if shard.count > 1:
        batches = [b[shard.index :: shard.count] if len(b) > shard.index else b[:1] for b in batches]
        order = np.concatenate(batches)
    return order, tuple(map(len, batches))
