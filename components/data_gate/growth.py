"""Detects columns that only grow (dates, timestamps, counters): unseen values in later rows are no drift."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from switchyard.components.data_gate.findings import DRIFT, GROWS, WARNING, Finding, exclude_option
from switchyard.components.data_gate.statistics import Quantiles, common, has_values, is_numeric, quantiles

_ISO = re.compile(r"\d{4}[-/]\d{2}|\d{4}[-/]\d{2}[-/]\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?)?( ?(Z|[+-]\d{2}:?\d{2}))?")
_FORMATS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S")
_MOSTLY = 0.95
# Seconds from 1990 to 2100; `_UNITS` scales them to milliseconds, microseconds and nanoseconds.
_EPOCH = (6.3e8, 4.1e9)
_UNITS = (1.0, 1e3, 1e6, 1e9)
_SECONDS = "seconds / "
_COUNTER = "a counter"
_UNIQUE = 0.95
_LEAST_ROWS = 50
_MOST_ROWS_A_ROW = 3


def ordered(rows: pd.DataFrame) -> dict[str, float]:
    """Returns the columns by which the rows are sorted in ascending order, with their share of distinct values."""
    return {str(name): share for name in rows.columns if (share := _ascending(rows[name])) is not None}


def growth_findings(features: Mapping[str, Any], ascending: Mapping[str, float], labels: set[str]) -> list[Finding]:
    """Returns a warning for each feature that grows from the first to the last row, such as a date, timestamp or counter.

    Args:
        features: feature -> statistics of the training split.
        ascending: see `ordered`.
        labels: the label columns, which are no features.
    """
    found = []
    for name in sorted(ascending.keys() & features.keys() - labels):
        span = _span(features[name])
        if span is None or (span.kind in ("", _COUNTER) and ascending[name] < _UNIQUE):
            continue
        seen = f"{span.words}, in the order of the rows"
        remedy = exclude_option(name)
        found.append(
            Finding(DRIFT, "train", name, GROWS, "values that also occur in later rows", seen, None, WARNING, "warn", remedy)
        )
    return found


def has_grown(now: Any, before: Any, *, is_ordered: bool) -> bool:
    """Whether a growing feature has only moved forward; a change of units is no growth.

    Args:
        now: current statistics of the feature.
        before: statistics to compare with.
        is_ordered: whether the current rows are sorted by the feature.
    """
    here, there = _span(now), _span(before)
    if here is None or there is None:
        return False
    is_known = here.kind == there.kind != ""
    width = there.high - there.low
    forward = here.middle > there.middle and here.high >= there.high and here.low >= there.low - 0.01 * width
    return forward and (is_known or (is_ordered and here.low <= there.high + width))


class _Span(NamedTuple):
    """A feature's range: the kind of time it counts (empty if unknown), its quantiles and a description in `words`."""

    kind: str
    low: float
    middle: float
    high: float
    words: str


def _span(feature: Any) -> _Span | None:
    if not has_values(feature):
        return None
    if not is_numeric(feature):
        return _text_span(feature)
    found = quantiles(feature)
    if found is None:
        return None
    low, middle, high = (float(found.edges[np.searchsorted(found.levels, level - 1e-9)]) for level in (0.05, 0.5, 0.95))
    kind = _kind(feature, found)
    return _Span(kind, low, middle, high, " to ".join(_shown(float(edge), kind) for edge in (found.edges[0], found.edges[-1])))


def _shown(value: float, kind: str) -> str:
    """Returns a value for display: times as dates, other values as numbers."""
    if not kind.startswith(_SECONDS):
        return f"{value:.10g}"
    moment = datetime.fromtimestamp(value / float(kind.removeprefix(_SECONDS)), tz=UTC)
    text = moment.strftime("%Y-%m-%d %H:%M:%S")
    return text.removesuffix(" 00:00:00")


def _text_span(feature: Any) -> _Span | None:
    buckets = feature.string_stats.rank_histogram.buckets
    texts = pd.Series([b.label for b in buckets], dtype=object)
    seconds = _dates(texts)
    if seconds is None:
        return None
    counts = np.array([b.sample_count for b in buckets])[seconds.index]
    order = np.argsort(seconds.to_numpy())
    levels = np.cumsum(counts[order]) / counts.sum()
    low, middle, high = (float(seconds.iloc[order[np.searchsorted(levels, level - 1e-9)]]) for level in (0.05, 0.5, 0.95))
    first, last = (texts[seconds.index[order[i]]] for i in (0, -1))
    return _Span("date", low, middle, high, f"{first} to {last}")


def _kind(feature: Any, found: Quantiles) -> str:
    edges = found.edges
    if edges[0] == edges[-1]:
        return ""
    for unit in _UNITS:
        if _EPOCH[0] * unit <= edges[0] and edges[-1] <= _EPOCH[1] * unit:
            return f"{_SECONDS}{unit:g}"
    whole = np.all(np.mod(edges, 1) == 0) if np.isfinite(edges).all() else False
    if not whole:
        return ""
    if 190001 <= edges[0] <= edges[-1] <= 210012 and np.all((edges % 100 > 0) & (edges % 100 < 13)):
        return "year and month"
    days, months = edges % 100, edges // 100 % 100
    if 19000101 <= edges[0] <= edges[-1] <= 21001231 and np.all((days > 0) & (days < 32) & (months > 0) & (months < 13)):
        return "year, month and day"
    return _COUNTER if _counts(feature, found) else ""


def _counts(feature: Any, found: Quantiles) -> bool:
    """Whether whole numbers are spread evenly and about as many as the rows; a split holds only some of all rows."""
    rows = common(feature).num_non_missing
    low, high = found.edges[0], found.edges[-1]
    if rows < _LEAST_ROWS or not rows <= high - low + 1 <= _MOST_ROWS_A_ROW * rows:
        return False
    uneven = np.abs((found.edges - low) / (high - low) - found.levels).max()
    return bool(uneven < 0.03 + 1.6 / rows**0.5)


def _ascending(column: pd.Series) -> float | None:
    values = column.dropna()
    if len(values) < _LEAST_ROWS:
        return None
    if not pd.api.types.is_numeric_dtype(values):
        texts = values.map(lambda v: v.decode("utf-8", "replace") if isinstance(v, bytes) else v)
        # Texts in alphabetical order do not grow.
        if not texts.map(lambda v: isinstance(v, str)).all() or _dates(texts.iloc[:_LEAST_ROWS]) is None:
            return None
        seconds = _dates(texts)
        if seconds is None:
            return None
        values = seconds
    numbers = values.to_numpy(np.float64)
    grows = numbers[0] < numbers[-1] and (np.diff(numbers) >= 0).all()
    return float(len(np.unique(numbers)) / len(numbers)) if grows else None


def _dates(texts: pd.Series) -> pd.Series | None:
    """Returns texts parsed as dates, in seconds since 1970; None when fewer than 95 % of them are dates."""
    if not len(texts):
        return None
    if texts.str.fullmatch(_ISO).mean() >= _MOSTLY:
        parsed = pd.to_datetime(texts.str.replace("/", "-"), format="ISO8601", errors="coerce", utc=True)
    else:
        # Tries all formats on a few texts first: most texts are no dates, and the first days of a month match two formats.
        fits = [f for f in _FORMATS if pd.to_datetime(texts.iloc[:_LEAST_ROWS], format=f, errors="coerce").notna().all()]
        if not fits:
            return None
        parsed = max((pd.to_datetime(texts, format=f, errors="coerce", utc=True) for f in fits), key=lambda p: p.notna().sum())
    known = parsed.dropna()
    if len(known) < _MOSTLY * len(texts):
        return None
    return known.dt.as_unit("ns").astype("int64") / 1e9
