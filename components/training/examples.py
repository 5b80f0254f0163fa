"""One input for every trainer: transformed examples as batches, from memory when they fit, else streamed.

Parsing is batched (`parse_example` on a batch of serialized examples) and never row by row in Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from switchyard.components.errors import UserError
from switchyard.components.training.contract import WHOLE, Batch, FeatureSpec, ModelSpec, Shard

# Serialized size up to which a split is decoded once and kept.
MEMORY_BYTES = 1 << 30
_PARSE_ROWS = 4096
_SHUFFLE_ROWS = 100_000


class TransformedExamples:
    """An `ExampleSource` over the TFRecords of one split."""

    def __init__(
        self, files: Sequence[str], feature_spec: dict[str, Any], label: str, *, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._files = list(files)
        if not self._files:
            raise FileNotFoundError("there are no transformed examples")
        self._spec = feature_spec
        self._label = label
        self._in_memory = sum(tf.io.gfile.stat(f).length for f in self._files) <= memory_bytes

    @cached_property
    def rows(self) -> int:
        """See ExampleSource."""
        if self._in_memory:
            return int(self._arrays[1].shape[0])
        counted = self._records().batch(_PARSE_ROWS).reduce(np.int64(0), lambda n, b: n + tf.shape(b, tf.int64)[0])
        return int(counted.numpy())

    def batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        """See ExampleSource."""
        yield from self.dataset(batch_size, seed=seed, first_epoch=epoch, shard=shard).as_numpy_iterator()

    def dataset(
        self, batch_size: int, *, seed: int | None = None, first_epoch: int = 0, epochs: int = 1, shard: Shard = WHOLE
    ) -> tf.data.Dataset:
        """See ExampleSource."""
        if self._in_memory:
            _ = self._arrays  # now, eagerly: inside of flat_map this would be traced into a graph
        build = self._epoch_in_memory if self._in_memory else self._epoch_streamed
        numbers = tf.data.Dataset.range(first_epoch, first_epoch + epochs)
        return numbers.flat_map(lambda epoch: build(batch_size, seed, epoch, shard)).prefetch(tf.data.AUTOTUNE)

    def _epoch_in_memory(self, batch_size: int, seed: int | None, epoch: tf.Tensor, shard: Shard) -> tf.data.Dataset:
        features, labels = self._arrays
        order = tf.range(self.rows, dtype=tf.int64)
        if seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, seed=tf.stack([tf.cast(seed, tf.int64), epoch]))

        def gather(start: tf.Tensor) -> Any:
            index = _part(order[start : start + batch_size], shard)
            return {k: tf.gather(v, index) for k, v in features.items()}, tf.gather(labels, index)

        return tf.data.Dataset.range(0, self.rows, batch_size).map(gather, num_parallel_calls=tf.data.AUTOTUNE)

    def _epoch_streamed(self, batch_size: int, seed: int | None, epoch: tf.Tensor, shard: Shard) -> tf.data.Dataset:
        # Every worker reads all records and parses its own: the same batches, whatever the number of workers.
        records = self._records()
        if seed is not None:
            records = records.shuffle(_SHUFFLE_ROWS, seed=seed + epoch)
        return records.batch(batch_size).map(lambda r: self._parse(_part(r, shard)), num_parallel_calls=tf.data.AUTOTUNE)

    @cached_property
    def _arrays(self) -> Any:
        parts = list(self._records().batch(_PARSE_ROWS).map(self._parse, num_parallel_calls=tf.data.AUTOTUNE))
        names = parts[0][0].keys()
        with tf.device("CPU:0"):
            return {k: tf.concat([f[k] for f, _ in parts], 0) for k in names}, tf.concat([y for _, y in parts], 0)

    def _records(self) -> tf.data.Dataset:
        compression = "GZIP" if self._files[0].endswith(".gz") else ""
        return tf.data.TFRecordDataset(self._files, compression_type=compression, buffer_size=8 << 20)

    def _parse(self, records: tf.Tensor) -> Any:
        features = tf.io.parse_example(records, self._spec)
        label = tf.reshape(features.pop(self._label), [-1])
        return {k: _scalar_to_column(v) for k, v in features.items()}, label


def _part(batch: tf.Tensor, shard: Shard) -> tf.Tensor:
    if shard.count == 1:
        return batch
    mine = batch[shard.index :: shard.count]
    return tf.cond(tf.size(mine) > 0, lambda: mine, lambda: batch[:1])


def _scalar_to_column(value: tf.Tensor) -> tf.Tensor:
    return value[:, tf.newaxis] if value.shape.rank == 1 else value


def feature_specs(transform: tft.TFTransformOutput, label: str) -> tuple[FeatureSpec, ...]:
    """Returns the transformed features, in alphabetical order.

    Raises:
        UserError: one of them is nothing a model can take.
    """
    domains = {f.name: f.int_domain for f in transform.transformed_metadata.schema.feature if f.HasField("int_domain")}
    found = []
    for name, spec in sorted(transform.transformed_feature_spec().items()):
        if name == label:
            continue
        if not isinstance(spec, tf.io.FixedLenFeature) or spec.dtype not in (tf.float32, tf.int64):
            raise UserError(
                f"preprocessing: the transformed feature {name!r} is {getattr(spec.dtype, 'name', '')} "
                f"({type(spec).__name__}); a model takes dense float32 or int64. Encode it, for example with "
                "tft.compute_and_apply_vocabulary."
            )
        domain = domains.get(name)
        size = int(domain.max) + 1 if domain is not None and domain.is_categorical and domain.min >= -1 else None
        found.append(FeatureSpec(name, spec.dtype.name, tuple(spec.shape) or (1,), size))
    return tuple(found)


def placeholder_batch(spec: ModelSpec, rows: int) -> dict[str, np.ndarray]:
    """Returns zeros in the shape of a batch: enough to see whether a model fits."""
    return {f.name: np.zeros((rows, *f.shape), dtype=f.dtype) for f in spec.features}
