"""Layer sizes of the default model, shared by both frameworks: embeddings, convolutions for images, then two dense layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

HIDDEN = (64, 32)
DROPOUT = 0.1
_SMALLEST, _MOST_CHANNELS, _MOST_CONVOLUTIONS = 4, 4, 6


def is_image(shape: Sequence[int]) -> bool:
    """Returns whether a feature of this shape is an image: height, width and 1 to 4 channels, and large enough to halve once."""
    return len(shape) == 3 and min(shape[:2]) >= _SMALLEST and shape[2] <= _MOST_CHANNELS


def image_filters(shape: Sequence[int]) -> list[int]:
    """Returns the filters of an image's convolutions of 3 x 3, each followed by a halving, until a side has 4 pixels or less."""
    filters, side = [16], min(shape[:2]) // 2
    while side > _SMALLEST and len(filters) < _MOST_CONVOLUTIONS:
        filters.append(min(2 * filters[-1], 64))
        side //= 2
    return filters


def embedding_width(vocabulary_size: int) -> int:
    """Returns a width that grows slowly with the vocabulary: 2 to 32."""
    return max(2, min(32, math.ceil(1.6 * math.pow(vocabulary_size, 0.4))))
