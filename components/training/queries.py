"""The examples of a ranking task: every batch holds whole queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from switchyard.components.errors import UserError
from switchyard.components.training.columns import WEIGHTS, Columns, joined
from switchyard.components.training.example_source import WHOLE, Block, Order, Shard, Stretch
from switchyard.components.training.examples import Examples, shuffled, split_columns

# Of the columns of a transformed label: the relevance, and the query's hash in two parts that float32 holds.
HASH_PART = 1 << 24
# Whole numbers that float32 tells apart, from 0.
MOST_QUERIES = 1 << 24


class QueryExamples(Examples):
    """An `ExampleSource` whose rows are sorted by query, and in memory, whatever their number.

    With a seed the queries of an epoch are shuffled, the rows within a query are not. There are as many batches as of single
    rows; each begins at the first row of a query, the last one before a multiple of `batch_size`, so its rows differ by less
    than those of a query.

    Labels are float32 (B, 3): the relevance, the number of the query, and the row's weight, with which the mean over rows of
    their queries' values is the mean over queries: rows / (queries * rows of the query), where queries without a relevant row
    count nothing.

    Args:
        layout: the blocks.
        parts: the rows, with labels (rows, 3): the relevance and the parts of the query's hash.
    """

    def __init__(self, layout: Sequence[Block], parts: Sequence[Columns]) -> None:
        """Sorts the rows. Raises UserError for sample weights, and for more queries than float32 has whole numbers."""
        if WEIGHTS in layout:
            raise UserError("trainer.sample_weight: a ranking is trained and measured by query, not by row; remove the key")
        arrays, labels = joined(parts)
        _, query = np.unique(labels[:, 1].astype(np.int64) * HASH_PART + labels[:, 2].astype(np.int64), return_inverse=True)
        query = query.reshape(-1)
        order = np.argsort(query, kind="stable")
        sizes = np.bincount(query)
        if len(sizes) > MOST_QUERIES:
            raise UserError(
                f"group: {len(sizes):,} queries in one split, at most {MOST_QUERIES:,} fit their numbers in training; use fewer"
            )
        relevant = np.bincount(query, labels[:, 0] > 0) > 0
        weights = len(query) / max(1, relevant.sum()) * relevant / sizes
        made = np.stack([labels[:, 0], query, weights[query]], axis=1).astype(np.float32)
        super().__init__(layout, [(tuple(a[order] for a in arrays), made[order])], memory_bytes=2**63)
        self._sizes = sizes

    @property
    def largest(self) -> int:
        """Number of rows of the largest query."""
        return int(self._sizes.max(initial=0))

    def order(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Order:
        """See ExampleSource. Raises UserError for several shards, which would cut queries."""
        if shard.count > 1:
            raise UserError("trainer.accelerator: a ranking task is trained on one device; set count and nodes to 1")
        random = None if seed is None else np.random.default_rng((seed, epoch))
        queries = shuffled(len(self._sizes), random)
        sizes = self._sizes[queries]
        starts = np.cumsum(sizes) - sizes
        rows = np.repeat((np.cumsum(self._sizes) - self._sizes)[queries] - starts, sizes) + np.arange(self.rows)
        wanted = np.arange(0, self.rows, batch_size)
        first = np.unique(starts[np.searchsorted(starts, wanted, side="right") - 1])
        return rows, tuple(np.diff([*first, self.rows]).tolist())

    def stretches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Iterator[Stretch]:
        """See ExampleSource."""
        rows, sizes = self.order(batch_size, seed=seed, epoch=epoch, shard=shard)
        arrays, labels = self._all
        start = 0
        for size in sizes:
            index = rows[start : start + size]
            start += size
            yield Stretch(tuple(a.take(index, axis=0) for a in arrays), labels.take(index, axis=0), (size,))


def query_examples(folder: Path, split: str) -> QueryExamples:
    """Returns a split of the transform stage's output of a ranking task, see `transformed_examples`."""
    return QueryExamples(*split_columns(folder, split))
