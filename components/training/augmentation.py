"""Random flips, shifts and rotations of images in training (`data.columns`), the same for every framework. NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from switchyard.components.ingest.config import AugmentConfig
from switchyard.components.training.example_source import WHOLE, Batch, Block, ExampleSource, Order, Shard, Stretch, batches_of

# Random numbers of an image: its flips, its shift down and to the right, its angle. Philox makes as many at once.
_DRAWS = 4
# Pixels that are sampled at once.
_PIXELS = 1 << 18


class Augmented:
    """An `ExampleSource` whose images differ in each epoch. Without a seed, so in every evaluation, they are as they are.

    The change of an image depends only on the seed, the epoch and the place of the row in the epoch's order, not on the shard or
    the batch size.

    Args:
        source: the train split.
        images: feature -> how its images are changed.
    """

    def __init__(self, source: ExampleSource, images: Mapping[str, AugmentConfig]) -> None:
        self._source = source
        self._images = {i: (block, images[block.names[0]]) for i, block in enumerate(source.blocks) if block.names[0] in images}

    @property
    def rows(self) -> int:
        """See ExampleSource."""
        return self._source.rows

    @property
    def blocks(self) -> tuple[Block, ...]:
        """See ExampleSource."""
        return self._source.blocks

    @property
    def weighted(self) -> bool:
        """See ExampleSource."""
        return self._source.weighted

    @property
    def resident(self) -> None:
        """See ExampleSource. No row stays what it is."""
        return None

    @property
    def resident_weights(self) -> None:
        """See ExampleSource."""
        return None

    def order(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Order:
        """See ExampleSource."""
        return self._source.order(batch_size, seed=seed, epoch=epoch, shard=shard)

    def batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        """See ExampleSource."""
        return batches_of(self.stretches(batch_size, seed=seed, epoch=epoch, shard=shard), self.blocks)

    def stretches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0, shard: Shard = WHOLE) -> Iterator[Stretch]:
        """See ExampleSource."""
        before = 0
        for stretch in self._source.stretches(batch_size, seed=seed, epoch=epoch, shard=shard):
            if seed is None:
                yield stretch
                continue
            places = _places(stretch.sizes, before, batch_size, shard)
            before += batch_size * len(stretch.sizes)
            arrays = list(stretch.arrays)
            for i, (block, how) in self._images.items():
                images = arrays[i].reshape(-1, *block.shape)
                arrays[i] = changed(images, _drawn((seed, epoch, i), places), how).reshape(arrays[i].shape)
            yield replace(stretch, arrays=tuple(arrays))


def augmented(source: ExampleSource, images: Mapping[str, AugmentConfig]) -> ExampleSource:
    """Returns a train split with changed images, see `Augmented`; the split itself if no column has any."""
    return Augmented(source, images) if images else source


def _places(sizes: Sequence[int], before: int, batch_size: int, shard: Shard) -> np.ndarray:
    """Returns the places in the epoch's order of a shard's rows in consecutive batches; `before`: rows of earlier batches."""
    own = (before + i * batch_size + shard.index + shard.count * np.arange(size) for i, size in enumerate(sizes))
    return np.concatenate(list(own))


def _drawn(seed: Sequence[int], places: np.ndarray) -> np.ndarray:
    """Returns the random numbers from 0 to 1 of places, (n, 4): a counter makes those of any place without the others."""
    first, last = int(places.min()), int(places.max())
    counter = np.random.Philox(key=np.random.SeedSequence(seed).generate_state(2, np.uint64))
    counter.advance(first)
    drawn: np.ndarray = np.random.Generator(counter).random((last - first + 1, _DRAWS))[places - first]
    return drawn


def changed(images: np.ndarray, draws: np.ndarray, how: AugmentConfig) -> np.ndarray:
    """Returns flipped, then rotated, then shifted images; what comes from outside of an image is its nearest pixel.

    Args:
        images: float32 (B, H, W, C).
        draws: from 0 to 1, (B, 4).
        how: what may be changed.

    Returns:
        Float32 (B, H, W, C), sampled bilinearly.
    """
    flips = (draws[:, 0] * 4).astype(int)
    mirrored = (flips & 1) * (how.flip in ("horizontal", "both")), (flips >> 1) * (how.flip in ("vertical", "both"))
    if not how.shift and not how.rotate:
        result = np.where(mirrored[0][:, None, None, None], images[:, :, ::-1], images)
        return np.where(mirrored[1][:, None, None, None], result[:, ::-1], result)
    _, height, width, _ = images.shape
    shifts = (2 * draws[:, 1:3] - 1) * how.shift * (height, width)
    angles = np.radians((2 * draws[:, 3] - 1) * how.rotate)
    signs = 1 - 2 * np.stack(mirrored[::-1], axis=1)
    result = np.empty_like(images)
    at_once = max(1, _PIXELS // (height * width))
    for start, end in pairwise([*range(0, len(images), at_once), len(images)]):
        part = slice(start, end)
        result[part] = _sampled(images[part], shifts[part], angles[part], signs[part])
    return result


def _sampled(images: np.ndarray, shifts: np.ndarray, angles: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Returns images (B, H, W, C) flipped by `signs` (B, 2), 1 or -1, turned by `angles` (B,) and moved by `shifts` (B, 2)."""
    count, height, width, _ = images.shape
    middle = (height - 1) / 2, (width - 1) / 2
    rows, columns = np.ogrid[:height, :width]
    y = rows - middle[0] - shifts[:, 0, None, None]
    x = columns - middle[1] - shifts[:, 1, None, None]
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    y, x = cos * y + sin * x, cos * x - sin * y
    y = np.clip(signs[:, 0, None, None] * y + middle[0], 0, height - 1)
    x = np.clip(signs[:, 1, None, None] * x + middle[1], 0, width - 1)
    top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    down, right = (y - top).astype(np.float32)[..., None], (x - left).astype(np.float32)[..., None]
    below, beside = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    each = np.arange(count)[:, None, None]
    above = images[each, top, left] * (1 - right) + images[each, top, beside] * right
    under = images[each, below, left] * (1 - right) + images[each, below, beside] * right
    sampled: np.ndarray = above * (1 - down) + under * down
    return sampled
