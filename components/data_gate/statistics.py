"""Reads TFDV's statistics: one split's features by name, and properties of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from tensorflow_metadata.proto.v0 import statistics_pb2

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList


def read_statistics(path: str | Path) -> Statistics:
    """Reads a `FeatureStats.pb`."""
    found: Statistics = statistics_pb2.DatasetFeatureStatisticsList.FromString(Path(path).read_bytes())
    return found


def features_of(statistics: Statistics) -> dict[str, Any]:
    """Returns feature -> its statistics."""
    return {f.path.step[0] if f.path.step else f.name: f for f in statistics.datasets[0].features}


def rows_of(statistics: Statistics) -> int:
    """Returns the number of examples."""
    return int(statistics.datasets[0].num_examples)


def is_numeric(feature: Any) -> bool:
    """Whether a feature holds numbers."""
    return bool(feature.HasField("num_stats"))


def common(feature: Any) -> Any:
    """Returns the statistics common to numeric and text features: counts and missing values."""
    return (feature.num_stats if is_numeric(feature) else feature.string_stats).common_stats


def type_name(feature: Any) -> str:
    """Returns a feature's type name: INT, FLOAT or STRING."""
    return str(statistics_pb2.FeatureNameStatistics.Type.Name(feature.type))


def present_share(feature: Any) -> float:
    """Returns the share of rows that have a value."""
    counts = common(feature)
    return float(counts.num_non_missing / max(1, counts.num_non_missing + counts.num_missing))


def has_values(feature: Any) -> bool:
    """Whether a feature has a value in any row; without values its type is meaningless."""
    return bool(common(feature).num_non_missing)


class Quantiles(NamedTuple):
    """A quantile histogram: `edges`, ascending, shape (b + 1,), and the share of values up to each, `levels`."""

    edges: np.ndarray
    levels: np.ndarray


def quantiles(feature: Any) -> Quantiles | None:
    """Returns a numeric feature's first quantile histogram, or None without one."""
    found = [h.buckets for h in feature.num_stats.histograms if h.type == statistics_pb2.Histogram.QUANTILES and h.buckets]
    if not found:
        return None
    counts = np.cumsum([b.sample_count for b in found[0]])
    edges = np.array([found[0][0].low_value, *(b.high_value for b in found[0])])
    return Quantiles(edges, np.append(0.0, counts / counts[-1])) if counts[-1] else None


def share_outside(feature: Any, low: float | None, high: float | None) -> float:
    """Returns the approximate share of a numeric feature's values outside of [low, high], from its histogram."""
    outside = total = 0.0
    for bucket in feature.num_stats.histograms[0].buckets if feature.num_stats.histograms else ():
        width = bucket.high_value - bucket.low_value
        total += bucket.sample_count
        below = 0.0 if low is None else _part(bucket.low_value, low, width)
        above = 0.0 if high is None else _part(-bucket.high_value, -high, width)
        outside += bucket.sample_count * min(1.0, below + above)
    return float(outside / total) if total else 0.0


def _part(start: float, bound: float, width: float) -> float:
    """Returns the share of [start, start + width] below `bound`."""
    if width <= 0:
        return float(start < bound)
    return float(min(1.0, max(0.0, (bound - start) / width)))
