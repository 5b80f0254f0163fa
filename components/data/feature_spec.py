"""Description of one transformed feature, for models and tokenizers. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FeatureSpec:
    """One transformed feature.

    Attributes:
        name: name of the feature.
        dtype: `float32` or `int64`; for a tokenizer's input `string` or `bytes`.
        shape: without the batch dimension, `(1,)` for a scalar.
        vocabulary_size: for vocabulary indices, the vocabulary's size including the out-of-vocabulary buckets; else None.
        pool: of a sequence whose order does not matter, `mean` or `sum` (`data.columns`); the default models pool it.
        mask: of a sequence with `pool`, the name of its mask, a feature of the same shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    vocabulary_size: int | None = None
    pool: str | None = None
    mask: str | None = None
