"""Second pass: batches to `tf.Example` TFRecords, split by hash, in shards of bounded size."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

SHARD_ROWS = 50_000


def assign(keys: Sequence[bytes], weights: Mapping[str, float]) -> np.ndarray:
    """Returns the split index of each key, shape (n,), by the first 8 bytes of BLAKE2b over the cumulated weights.

    The same key always lands in the same split, whatever else is in the data.
    """
    digests = b"".join(hashlib.blake2b(k, digest_size=8).digest() for k in keys)
    hashes = np.frombuffer(digests, dtype="<u8")
    shares = np.cumsum(list(weights.values()))
    return np.searchsorted(shares / shares[-1], hashes / 2.0**64, side="right").clip(max=len(weights) - 1)


def key_bytes(column: pa.Array) -> list[bytes]:
    """Returns the values of a key column as bytes; missing is empty."""
    return [b"" if v is None else v if isinstance(v, bytes) else str(v).encode() for v in column.to_pylist()]


class SplitWriter:
    """Writes serialized examples to `Split-<name>/data_tfrecord-<i>-of-<n>`, a new shard every `SHARD_ROWS` rows."""

    def __init__(self, uri: str, split: str) -> None:
        import tensorflow as tf

        self._open = tf.io.TFRecordWriter
        self.folder = os.path.join(uri, f"Split-{split}")
        os.makedirs(self.folder, exist_ok=True)
        self.rows = 0
        self._writer = None
        self._parts: list[str] = []

    def write(self, records: Sequence[bytes]) -> None:
        """Appends records."""
        for record in records:
            if self.rows % SHARD_ROWS == 0:
                self._next()
            self._writer.write(record)  # type: ignore[attr-defined]  # set by _next
            self.rows += 1

    def close(self) -> None:
        """Finishes the last shard and gives all their final names, which hold their number."""
        if self._writer:
            self._writer.close()
        total = len(self._parts)
        for i, part in enumerate(self._parts):
            os.replace(part, os.path.join(self.folder, f"data_tfrecord-{i:05d}-of-{total:05d}"))

    def _next(self) -> None:
        if self._writer:
            self._writer.close()
        self._parts.append(os.path.join(self.folder, f"part-{len(self._parts):05d}"))
        self._writer = self._open(self._parts[-1])


def take(records: Sequence[bytes], chosen: np.ndarray) -> list[bytes]:
    """Returns the records where `chosen` (bool, shape (n,)) holds."""
    return list(itertools.compress(records, chosen))
