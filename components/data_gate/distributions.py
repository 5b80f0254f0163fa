"""Bins two features' distributions into shared cells: quantiles or values of the earlier feature, and missing rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from tensorflow_metadata.proto.v0 import statistics_pb2

from switchyard.components.data_gate.chance import LEAST_EXPECTED
from switchyard.components.data_gate.statistics import Quantiles, common, is_numeric, quantiles

_CELLS = 10
_ROWS_A_CELL = 8
_EMPTY = np.zeros(0)
# A histogram with more edges than `_FINE` is precise enough for all cells; cells below `_LEAST_SHARE` are pooled.
_FINE = 50
_LEAST_SHARE = 0.015
Side: TypeAlias = Literal["left", "right"]


class Cells(NamedTuple):
    """Rows in each cell, `now` and `before`, shape (k,), and the share of rows in cells too small to compare, `pooled`."""

    now: np.ndarray
    before: np.ndarray
    pooled: float


def cells(now: Any, before: Any, independent: float = 1.0) -> Cells:
    """Returns the cells of two features of one type; a feature without values matches every type.

    Args:
        now: current statistics of the feature.
        before: statistics to compare with.
        independent: share of independent rows: a hundred rows of ten people count as ten.
    """
    present, present_before = (common(f).num_non_missing for f in (now, before))
    if not present or not present_before:
        shares = shares_before = np.ones(1)
    elif is_numeric(before):
        shares, shares_before = _number_shares(now, before, min(present, present_before))
    else:
        shares, shares_before = _text_shares(now, before)
    rows = np.append(shares * present, common(now).num_missing)
    rows_before = np.append(shares_before * present_before, common(before).num_missing)
    least = _LEAST_SHARE if is_numeric(before) and is_numeric(now) else 0.0
    return _pooled(rows * independent, rows_before * independent, least)


def _number_shares(now: Any, before: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shares between quantiles of the earlier feature, which outliers do not affect."""
    mine, theirs = quantiles(now), quantiles(before)
    if mine is None or theirs is None:
        return np.ones(1), np.ones(1)
    most = _CELLS if len(theirs.edges) > _FINE else _CELLS // 2
    count = int(np.clip(rows // _ROWS_A_CELL, 2, most))
    wanted = np.round(np.arange(1, count) * (len(theirs.edges) - 1) / count).astype(int)
    points = [p for cut in np.unique(theirs.edges[wanted]) for p in _points(cut, mine.edges, theirs.edges)]
    at, at_before = (np.array([_below(q, *p) for p in points]) for q in (mine, theirs))
    if min(len(mine.edges), len(theirs.edges)) <= _FINE:
        # A difference within the coarse buckets of an older version is no drift.
        allowed, allowed_before = (np.array([_between(q, *p) for p in points]) for q in (mine, theirs))
        at = at_before.clip(*allowed.T)
        at_before = at.clip(*allowed_before.T)
    shares, shares_before = (np.diff(np.maximum.accumulate(np.concatenate([[0.0], f, [1.0]]))) for f in (at, at_before))
    return shares, shares_before


def _points(cut: float, *edges: np.ndarray) -> list[tuple[float, Side]]:
    """Returns the points of a cut: both sides of a value that fills a bucket and so is its own cell, else the right side."""
    fills = any(np.count_nonzero(e == cut) > 1 for e in edges)
    return [(cut, "left"), (cut, "right")] if fills else [(cut, "right")]


def _below(histogram: Quantiles, point: float, side: Side) -> float:
    """Returns the share of values below (left) or up to (right) a point; a bucket that ends in a frequent value holds only it."""
    low, high = _between(histogram, point, side)
    index = int(np.searchsorted(histogram.edges, point, side=side))
    if low == high or histogram.edges[index - 1] == point:
        return low
    start, end = histogram.edges[index - 1 : index + 1]
    fills = end == point or np.count_nonzero(histogram.edges == end) > 1
    return low if fills or not np.isfinite(end - start) else float(low + (high - low) * (point - start) / (end - start))


def _between(histogram: Quantiles, point: float, side: Side) -> tuple[float, float]:
    """Returns the bounds of the share of values below (left) or up to (right) a point."""
    index = int(np.searchsorted(histogram.edges, point, side=side))
    if index == 0:
        return 0.0, 0.0
    if index == len(histogram.edges):
        return 1.0, 1.0
    return histogram.levels[index - 1], histogram.levels[index]


def _text_shares(now: Any, before: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shares of values, last the share of all values that the statistics do not list."""
    (mine, least), (theirs, least_before) = _values(now), _values(before)
    names = sorted(mine.keys() | theirs.keys())
    shares = np.array([mine.get(n, np.nan) for n in names])
    shares_before = np.array([theirs.get(n, np.nan) for n in names])
    # A value missing from a full list may be as frequent as the list's rarest value.
    shares = np.where(np.isnan(shares), np.minimum(shares_before, least), shares)
    shares_before = np.where(np.isnan(shares_before), np.minimum(shares, least_before), shares_before)
    return _with_rest(shares), _with_rest(shares_before)


def _with_rest(shares: np.ndarray) -> np.ndarray:
    whole = np.append(shares, max(0.0, 1 - shares.sum()))
    return np.asarray(whole / whole.sum())


def _values(feature: Any) -> tuple[dict[str, float], float]:
    buckets: Sequence[statistics_pb2.RankHistogram.Bucket] = feature.string_stats.rank_histogram.buckets
    total = max(1.0, common(feature).tot_num_values or common(feature).num_non_missing, sum(b.sample_count for b in buckets))
    is_full = feature.string_stats.unique > len(buckets)
    return {b.label: b.sample_count / total for b in buckets}, min((b.sample_count for b in buckets), default=0) / total * is_full


def _pooled(now: np.ndarray, before: np.ndarray, least_share: float) -> Cells:
    """Pools the smallest cells until each expects enough rows in both samples."""
    rows, others = now.sum(), before.sum()
    if not rows or not others:
        return Cells(_EMPTY, _EMPTY, 1.0)
    expected = (now + before) / (rows + others) * min(rows, others)
    order = np.argsort(expected, kind="stable")
    order = order[expected[order] > 0]
    least = max(LEAST_EXPECTED, least_share * min(rows, others))
    small = int(np.searchsorted(expected[order], least))
    if small and expected[order[:small]].sum() < least:
        small += 1
    first = order[:small]
    pool = [float(now[first].sum())] * bool(small), [float(before[first].sum())] * bool(small)
    kept = order[small:]
    share = float(expected[first].sum() / min(rows, others))
    return Cells(np.append(now[kept], pool[0]), np.append(before[kept], pool[1]), share)
