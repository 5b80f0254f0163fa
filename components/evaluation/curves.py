"""Curves of a binary task, of scores that are sorted into 10,000 buckets of equal width: TFMA's buckets, thresholds and formulas.

The same buckets are behind a metric, its interval and its plots, and two batches or machines are added up bucket by bucket.
"""

from __future__ import annotations

import numpy as np

_BUCKETS = 10_000
# TFMA counts a score at a threshold as below it; its buckets begin at their threshold.
_EPSILON = 1e-7
# Where each bucket begins; the first is for what is below 0, the last for 1 and above.
_BEGINS = np.concatenate([[-np.inf], np.arange(_BUCKETS) / _BUCKETS, [np.inf]])


def bucket_of(scores: np.ndarray) -> np.ndarray:
    """Returns the bucket of each score, int64 (n,); of what is no number the first."""
    position = np.nan_to_num(scores.astype(np.float64) * _BUCKETS + 1, nan=0.0)
    return np.asarray(position.clip(0, _BUCKETS + 1), np.int64)


def bins_of(buckets: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Returns for each bucket the last of `thresholds` (sorted) that it does not begin below, the first at least, int64 (n,)."""
    return np.asarray(np.searchsorted(thresholds, _BEGINS[buckets], side="right") - 1).clip(0)


def above(thresholds: np.ndarray) -> np.ndarray:
    """Returns thresholds as the bounds of what is above them; 0 stays."""
    return np.where(thresholds == 0, 0.0, thresholds + _EPSILON)


_CURVE = above(np.concatenate([[-_EPSILON], np.arange(1, _BUCKETS - 1) / (_BUCKETS - 1), [1 + _EPSILON]]))
# At the last threshold nothing is above: its bin is the one before it.
_CURVE_BINS = _BUCKETS - 1
_BIN_OF_BUCKET = bins_of(np.arange(_BUCKETS + 2), _CURVE).clip(max=_CURVE_BINS - 1)


def curve_bins(buckets: np.ndarray) -> np.ndarray:
    """Returns the bin of each bucket, int64 (n,), for `roc_area`, in which only its order matters, and `spread`."""
    return np.asarray(_BIN_OF_BUCKET[buckets])


def spread(bins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns what is in each of all bins of the curve, float64 (9999,)."""
    return np.bincount(bins, counts, _CURVE_BINS)


def roc_area(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order, of those in one bin the half.

    Args:
        hits: positives of each bin, (..., bins), the lowest scores first.
        misses: negatives, likewise.

    Returns:
        float64 (...); NaN where one of the classes is not there.
    """
    below = np.cumsum(misses, axis=-1) - misses
    pairs = np.asarray(hits.sum(axis=-1) * misses.sum(axis=-1))
    right = np.asarray((hits * (below + misses / 2)).sum(axis=-1))
    return np.divide(right, pairs, out=np.full(pairs.shape, np.nan), where=pairs != 0)


def precision_recall_area(hits: np.ndarray, misses: np.ndarray) -> float:
    """Area under the precision-recall curve, interpolated between thresholds as Davis and Goadrich (2006) do.

    Args:
        hits: positives of each bin, (bins,), the lowest scores first.
        misses: negatives, likewise.

    Returns:
        NaN where there is no positive.
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
