"""Checks the column of the sample weights: finite numbers of 0 or more, one in each row, not all 0."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from switchyard.components.data_gate.findings import SCHEMA, Finding
from switchyard.components.data_gate.statistics import Statistics, common, features_of

_REMEDY = "--set trainer.sample_weight=null"


def weight_findings(statistics: Statistics, split: str, name: str) -> list[Finding]:
    """Returns the findings on a split's sample weights; each stops the run, as no model can be trained or measured with them.

    Args:
        statistics: the split's statistics.
        split: name of the split.
        name: the column.
    """
    feature = features_of(statistics).get(name)
    if feature is None:
        return [_finding(split, name, "no sample weight", "a number in every row", "no row has one", 1.0)]
    return list(_problems(feature, split, name))


def _problems(feature: Any, split: str, name: str) -> Iterator[Finding]:
    counts, numbers = common(feature), feature.num_stats
    nan = int(numbers.histograms[0].num_nan) if numbers.histograms else 0
    there, missing = int(counts.num_non_missing), int(counts.num_missing) + nan
    if missing:
        share = missing / (there + int(counts.num_missing))
        seen = f"{missing:,} rows without one (missing, or no number)"
        yield _finding(split, name, "missing sample weights", "a number in every row", seen, share)
    if numbers.min < 0:
        yield _finding(split, name, "negative sample weights", "numbers of 0 or more", f"the smallest is {numbers.min:g}")
    if math.isinf(numbers.max):
        yield _finding(split, name, "infinite sample weights", "finite numbers", "the largest is infinite")
    if there and numbers.num_zeros == there - nan:
        yield _finding(split, name, "all sample weights are 0", "a number above 0 in some row", f"0 in all {there:,} rows")


def _finding(split: str, name: str, anomaly: str, expected: str, seen: str, share: float | None = None) -> Finding:
    return Finding(SCHEMA, split, name, anomaly, expected, seen, share, remedy=_REMEDY)
