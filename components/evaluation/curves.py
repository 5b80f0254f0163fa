"""Computes curves of binary tasks from scores in 10,000 buckets of equal width: TFMA's buckets, thresholds and formulas.

A metric, its interval and its plots use the same buckets; results of batches and machines are added bucket by bucket.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BUCKETS = 10_000
# TFMA counts a score at a threshold as below it, while its buckets include their lower bound.
_EPSILON = 1e-7
# Lower bound of each bucket; the first bucket holds scores below 0, the last one scores of 1 and above.
_BEGINS = np.concatenate([[-np.inf], np.arange(_BUCKETS) / _BUCKETS, [np.inf]])


def bucket_of(scores: np.ndarray) -> np.ndarray:
    """Returns the bucket of each score, int64 (n,); NaN is in the first bucket."""
    position = np.nan_to_num(scores.astype(np.float64) * _BUCKETS + 1, nan=0.0)
    return np.asarray(position.clip(0, _BUCKETS + 1), np.int64)


def bins_of(buckets: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Returns for each bucket the index of the last threshold not above its lower bound, at least 0, int64 (n,).

    Args:
        buckets: indices of buckets, int64 (n,).
        thresholds: sorted thresholds.
    """
    return np.asarray(np.searchsorted(thresholds, _BEGINS[buckets], side="right") - 1).clip(0)


def above(thresholds: np.ndarray) -> np.ndarray:
    """Returns thresholds as exclusive lower bounds; 0 is unchanged."""
    return np.where(thresholds == 0, 0.0, thresholds + _EPSILON)


_CURVE = above(np.concatenate([[-_EPSILON], np.arange(1, _BUCKETS - 1) / (_BUCKETS - 1), [1 + _EPSILON]]))
# No score is above the last threshold, so its bin is the one before it.
_CURVE_BINS = _BUCKETS - 1
_BIN_OF_BUCKET = bins_of(np.arange(_BUCKETS + 2), _CURVE).clip(max=_CURVE_BINS - 1)


def curve_bins(buckets: np.ndarray) -> np.ndarray:
    """Returns the bin of each bucket, int64 (n,), for `roc_area`, which uses only the bins' order, and `spread`."""
    return np.asarray(_BIN_OF_BUCKET[buckets])


def spread(bins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the counts in all bins of the curve, float64 (9999,)."""
    return np.bincount(bins, counts, _CURVE_BINS)


def roc_area(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """Returns the area under the ROC curve: the share of correctly ordered (positive, negative) pairs, ties counting half.

    Args:
        hits: positives per bin, (..., bins), by ascending score.
        misses: negatives per bin, of the same shape.

    Returns:
        float64 (...); NaN if one of the classes is missing.
    """
    below = np.cumsum(misses, axis=-1) - misses
    pairs = np.asarray(hits.sum(axis=-1) * misses.sum(axis=-1))
    right = np.asarray((hits * (below + misses / 2)).sum(axis=-1))
    area: np.ndarray = np.divide(right, pairs, out=np.full(pairs.shape, np.nan), where=pairs != 0)
    return area


def defined_mean(areas: Sequence[np.ndarray | float]) -> np.ndarray:
    """Returns the mean of the areas, each of the same shape (...), of those that are not NaN; NaN if all are."""
    values = np.stack([np.asarray(area, np.float64) for area in areas])
    there = (~np.isnan(values)).sum(axis=0)
    mean: np.ndarray = np.divide(np.nansum(values, axis=0), there, out=np.full(values.shape[1:], np.nan), where=there > 0)
    return mean


def precision_recall_area(hits: np.ndarray, misses: np.ndarray) -> float:
    """Returns the area under the precision-recall curve, interpolated as by Davis and Goadrich (2006).

    Args:
        hits: positives per bin, (bins,), by ascending score.
        misses: negatives per bin, of the same shape.

    Returns:
        The area; NaN if there are no positives.
    """
    if not hits.sum():
        return float("nan")
    tp, fp = (np.append(np.cumsum(n[::-1])[::-1], 0.0) for n in (hits, misses))
    called = tp + fp
    fewer, fewer_tp = called[:-1] - called[1:], tp[:-1] - tp[1:]
    slope = np.divide(fewer_tp, fewer, out=np.zeros_like(fewer), where=fewer > 0)
    intercept = tp[1:] - slope * called[1:]
    ratio = np.divide(called[:-1], called[1:], out=np.ones_like(fewer), where=called[1:] != 0)
    return float((slope * (fewer_tp + intercept * np.log(ratio))).sum() / hits.sum())
