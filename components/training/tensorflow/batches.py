"""Adapts the shared input to `tf.data.Dataset`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from switchyard.components.training.example_source import WHOLE, Block, ExampleSource, Shard


def dataset(
    source: ExampleSource,
    batch_size: int,
    *,
    seed: int | None = None,
    first_epoch: int = 0,
    epochs: int = 1,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """Returns the batches of epochs: features by name, (B, *feature shape), labels, (B,) or (B, labels), any weights, (B,)."""
    batches = stretches(source, batch_size, seed=seed, first_epoch=first_epoch, epochs=epochs, shard=shard).map(
        lambda arrays, *of_rows: (features_of(source.blocks, arrays), *of_rows), num_parallel_calls=tf.data.AUTOTUNE
    )
    # Keras warns about a dataset that ends without a known cardinality.
    count = epochs * math.ceil(source.rows / batch_size)
    return batches.apply(tf.data.experimental.assert_cardinality(count)).prefetch(tf.data.AUTOTUNE)


def stretches(
    source: ExampleSource,
    batch_size: int,
    *,
    seed: int | None = None,
    first_epoch: int = 0,
    epochs: int | None = 1,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """Returns batches of blocks: one array per block, shape (B, width), labels, (B,) or (B, labels), and any weights, (B,).

    `epochs` None is without end.

    TensorFlow receives several batches at once from Python and splits them in its own threads.
    """

    def taken() -> Iterator[Any]:
        for epoch in itertools.count(first_epoch) if epochs is None else range(first_epoch, first_epoch + epochs):
            for stretch in source.stretches(batch_size, seed=seed, epoch=epoch, shard=shard):
                yield stretch.arrays, stretch.of_rows, np.asarray(stretch.sizes)

    _, *of_rows = next(iter(source.batches(1)))
    signature = (
        tuple(tf.TensorSpec((None, b.width), b.dtype) for b in source.blocks),
        tuple(tf.TensorSpec((None, *values.shape[1:]), values.dtype) for values in of_rows),
        tf.TensorSpec((None,), tf.int64),
    )
    return tf.data.Dataset.from_generator(taken, output_signature=signature).flat_map(_batches)


def _batches(arrays: tuple[tf.Tensor, ...], of_rows: tuple[tf.Tensor, ...], sizes: tf.Tensor) -> tf.data.Dataset:
    """Returns the batches of a stretch."""
    starts = tf.cumsum(sizes, exclusive=True)

    def batch(start: tf.Tensor, size: tf.Tensor) -> Any:
        return tuple(a[start : start + size] for a in arrays), *(r[start : start + size] for r in of_rows)

    return tf.data.Dataset.from_tensor_slices((starts, sizes)).map(batch)


def features_of(blocks: tuple[Block, ...], arrays: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
    """Returns the features of a batch's blocks by name, shape (B, *feature shape)."""
    features: dict[str, tf.Tensor] = {}
    for block, array in zip(blocks, arrays, strict=True):
        parts = tf.split(array, len(block.names), axis=1) if len(block.names) > 1 else [array]
        features |= {name: tf.reshape(part, [-1, *block.shape]) for name, part in zip(block.names, parts, strict=True)}
    return features
