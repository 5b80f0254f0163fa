"""Second pass: writes batches as `tf.Example` TFRecords, split by hash, in shards of bounded size."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array

from switchyard.components.data.shards import ShardWriter, rename

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def assign(hashes: np.ndarray, weights: Mapping[str, float]) -> np.ndarray:
    """Returns the split index of each hash, shape (n,), by its position in the cumulative weights.

    A hash maps to the same split regardless of the other data.
    """
    shares = np.cumsum(list(weights.values()))
    return np.searchsorted(shares / shares[-1], hashes / 2.0**64, side="right").clip(max=len(weights) - 1)


def row_hashes(batch: pa.RecordBatch) -> np.ndarray:
    """Returns a hash per row of list columns, uint64 (n,).

    Hashes values rather than serialized examples, because protobuf's map order changes from run to run. Neither the order of the
    columns nor 5 becoming 5.0 in a float column moves a row to another split.
    """
    total = np.zeros(batch.num_rows, dtype=np.uint64)
    for name in sorted(batch.schema.names):
        column = batch.column(name)
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        hashes = np.zeros(batch.num_rows, dtype=np.uint64)
        if lengths.max(initial=0) <= 1:
            hashes[lengths == 1] = hash_array(_comparable(column.flatten()), categorize=False)
        else:
            hashes = hash_array(np.asarray([str(v) for v in column.to_pylist()], dtype=object), categorize=False)
        total = total * _GOLDEN + hashes
    # The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the sum affects the upper ones.
    total = (total ^ (total >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    total = (total ^ (total >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: np.ndarray = total ^ (total >> np.uint64(31))
    return found


def _comparable(values: pa.Array) -> np.ndarray:
    """Returns numbers as float64, so that equal ones hash alike; beyond 2^53, neighbours may share a hash and thus a split."""
    found: np.ndarray = values.to_numpy(zero_copy_only=False)
    return found.astype(np.float64) + 0.0 if found.dtype.kind in "iuf" else found


class SplitWriter:
    """A writer of serialized examples to the shards `Split-<name>/data_tfrecord-<i>-of-<n>`."""

    def __init__(self, uri: str, split: str) -> None:
        self.folder = os.path.join(uri, f"Split-{split}")
        self._shards = ShardWriter(self.folder, "part")

    @property
    def rows(self) -> int:
        """Number of rows written."""
        return self._shards.rows

    def write(self, records: Sequence[bytes]) -> None:
        """Appends records."""
        self._shards.write(records)

    def close(self) -> None:
        """Finishes the last shard and renames all shards to their final names, which include the total count."""
        rename(self._shards.close(), os.path.join(self.folder, "data_tfrecord"))


def take(records: Sequence[bytes], chosen: np.ndarray) -> list[bytes]:
    """Returns the records where `chosen` (bool, shape (n,)) is True."""
    return list(itertools.compress(records, chosen))
