"""Layer sizes of the default model, shared by both frameworks: embeddings for vocabularies, then two dense layers."""

from __future__ import annotations

import math

HIDDEN = (64, 32)
DROPOUT = 0.1


def embedding_width(vocabulary_size: int) -> int:
    """Returns a width that grows slowly with the vocabulary: 2 to 32."""
    return max(2, min(32, math.ceil(1.6 * math.pow(vocabulary_size, 0.4))))
