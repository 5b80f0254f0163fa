"""Reading TFDV's statistics: one split's features by name, and a few facts about each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

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
    """Returns what both kinds of features have: counts, missing."""
    return (feature.num_stats if is_numeric(feature) else feature.string_stats).common_stats


def type_name(feature: Any) -> str:
    """Returns INT, FLOAT or STRING."""
    return str(statistics_pb2.FeatureNameStatistics.Type.Name(feature.type))


def present_share(feature: Any) -> float:
    """Returns the share of rows that have a value."""
    counts = common(feature)
    return float(counts.num_non_missing / max(1, counts.num_non_missing + counts.num_missing))


def share_outside(feature: Any, low: float | None, high: float | None) -> float:
    """Returns about what share of a numeric feature's values lies outside of [low, high], by its histogram."""
    outside = total = 0.0
    for bucket in feature.num_stats.histograms[0].buckets if feature.num_stats.histograms else ():
        width = bucket.high_value - bucket.low_value
        total += bucket.sample_count
        below = 0.0 if low is None else _part(bucket.low_value, low, width)
        above = 0.0 if high is None else _part(-bucket.high_value, -high, width)
        outside += bucket.sample_count * min(1.0, below + above)
    return float(outside / total) if total else 0.0


def _part(start: float, bound: float, width: float) -> float:
    """Share of [start, start + width] below `bound`."""
    if width <= 0:
        return float(start < bound)
    return float(min(1.0, max(0.0, (bound - start) / width)))
