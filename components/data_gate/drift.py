"""Drift and skew: distances between two sets of statistics by feature, and whether chance explains them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from tensorflow_metadata.proto.v0 import schema_pb2

from switchyard.components.data_gate.anomalies import action_for
from switchyard.components.data_gate.chance import critical, is_new, largest_by_chance, power_divergence
from switchyard.components.data_gate.config import DataGateSettings, DriftConfig
from switchyard.components.data_gate.distributions import Cells, cells
from switchyard.components.data_gate.findings import (
    CHAMPION,
    ERROR,
    GROWS,
    SKEW,
    SPLITS,
    WARNING,
    Distance,
    Finding,
    option_for,
    percent,
    remedy_for,
)
from switchyard.components.data_gate.growth import has_grown
from switchyard.components.data_gate.statistics import (
    Statistics,
    common,
    features_of,
    has_values,
    is_numeric,
    present_share,
    quantiles,
    rows_of,
    type_name,
)

TOO_FEW, TOO_MANY_VALUES = "too few rows", "too many distinct values"
# In fewer rows even frequent values are too rare to compare.
_FEW = 30
_MEASURES = {"jensen_shannon": "Jensen-Shannon", "l_infinity": "L-infinity"}


def distances(
    now: Statistics,
    before: Statistics,
    check: str,
    where: str,
    ignored: set[str],
    ordered: Collection[str] = (),
    independent: float = 1.0,
) -> list[Distance]:
    """Returns the distances of all features that both sets of statistics have.

    Args:
        now: current statistics.
        before: statistics to compare with.
        check: `drift` or `skew`, for the findings.
        where: description of the two sides.
        ignored: features to skip.
        ordered: features by which the current rows are sorted, see `growth.ordered`.
        independent: share of independent rows, see `distributions.cells`.
    """
    mine, theirs = features_of(now), features_of(before)
    names = [n for n in sorted(mine.keys() & theirs.keys() - ignored) if not _of_another_type(mine[n], theirs[n])]
    found = []
    for name in names:
        here, there = mine[name], theirs[name]
        distance = _distance(cells(here, there, independent), len(names), is_text=not (is_numeric(here) or is_numeric(there)))
        reason = distance.pop("reason")
        if not reason and distance_is_large(distance) and has_grown(here, there, is_ordered=name in ordered):
            reason = GROWS
        found.append(
            Distance(check, where, name, **distance, judged=not reason, reason=reason, now=_summary(here), before=_summary(there))
        )
    return found


def distance_is_large(distance: Mapping[str, Any]) -> bool:
    """Whether a distance exceeds its noise."""
    return bool(max(distance["jensen_shannon"], distance["l_infinity"] or 0.0) > distance["noise"])


def _of_another_type(mine: Any, theirs: Any) -> bool:
    return has_values(mine) and has_values(theirs) and is_numeric(mine) != is_numeric(theirs)


def _distance(both: Cells, comparisons: int, *, is_text: bool) -> dict[str, Any]:
    rows, others = float(both.now.sum()), float(both.before.sum())
    noise = largest_by_chance(len(both.now), comparisons, rows, others)
    measured = {"jensen_shannon": 0.0, "l_infinity": 0.0 if is_text else None, "noise": min(1.0, noise), "reason": ""}
    if not rows or not others:
        return {**measured, "reason": TOO_FEW}
    if len(both.now) < 2:
        # A single cell: either all rows have the same value, or all values are rare.
        too_many = is_text and min(rows, others) >= _FEW
        return {**measured, "reason": (TOO_MANY_VALUES if too_many else TOO_FEW) if both.pooled else ""}
    shares, shares_before = both.now / rows, both.before / others
    largest_seen = jensen_shannon(shares, shares_before)
    widest = float(np.abs(shares - shares_before).max()) if is_text else None
    limit, statistic = critical(len(shares), comparisons), power_divergence(both.now, both.before)
    most = np.zeros(len(shares))
    most[np.argmin(both.before)] = rows
    reason = TOO_FEW if power_divergence(most, both.before) <= limit else TOO_MANY_VALUES if both.pooled > 0.9 else ""
    if statistic > 1e-12:
        # The largest distance by chance, on the scale of the distance itself.
        noise = max(largest_seen, widest or 0.0) * (limit / statistic) ** 0.5
    return {"jensen_shannon": largest_seen, "l_infinity": widest, "noise": min(1.0, noise), "reason": reason}


def jensen_shannon(shares: np.ndarray, others: np.ndarray) -> float:
    """Returns the distance of two distributions over the same cells, 0 to 1: the root of the divergence in bits."""
    middle = (shares + others) / 2

    def divergence(part: np.ndarray) -> float:
        held = part > 0
        return float((part[held] * np.log2(part[held] / middle[held])).sum())

    return float(np.sqrt(np.clip((divergence(shares) + divergence(others)) / 2, 0, 1)))


def _summary(feature: Any) -> str:
    """Returns a short description of a distribution."""
    counts = common(feature)
    missing = f"{percent(1 - present_share(feature))} missing" if counts.num_missing else ""
    if not counts.num_non_missing:
        return "no value at all"
    if not is_numeric(feature):
        buckets = feature.string_stats.rank_histogram.buckets[:3]
        total = max(1.0, counts.tot_num_values or counts.num_non_missing)
        words = [f"{b.label[:40]} {percent(b.sample_count / total)}" for b in buckets]
        words += ["..."] if feature.string_stats.unique > len(buckets) else []
    else:
        found = quantiles(feature)
        words = [f"median {feature.num_stats.median:.6g}"]
        if found is not None:
            low, high = (found.edges[np.searchsorted(found.levels, level - 1e-9)] for level in (0.25, 0.75))
            words.append(f"middle half {low:.6g} to {high:.6g}")
    return ", ".join([*words, missing] if missing else words)


def distance_findings(
    found: list[Distance], limits: DriftConfig, of_schema: Mapping[str, Mapping[str, float]] | None = None
) -> list[Finding]:
    """Returns findings for the distances that exceed both their feature's limits and chance.

    Args:
        found: see `distances`.
        limits: limits of the config; a feature's own limits override the schema's.
        of_schema: see `schemas_bounds`; overrides the config's general limits.
    """
    findings = []
    for distance in found:
        own = limits.features.get(distance.feature)
        schemas = (of_schema or {}).get(distance.feature) if own is None else None
        low, high = (schemas or dict.fromkeys(_MEASURES, level) for level in ((own or limits).warn, (own or limits).fail))
        bound = _exceeded(distance, low)
        if not distance.judged or distance.largest <= distance.noise or bound is None:
            continue
        # Separate inputs often come from different times, so their distances only warn.
        severe = None if distance.check == SPLITS else _exceeded(distance, high)
        measured = [
            f"{words} {getattr(distance, name):.2f}" for name, words in _MEASURES.items() if getattr(distance, name) is not None
        ]
        findings.append(
            Finding(
                distance.check,
                distance.where,
                distance.feature,
                "its distribution has changed",
                f"{distance.before}; a distance of at most {bound if severe is None else severe:g}",
                f"{distance.now}; {', '.join(measured)}",
                None,
                WARNING if severe is None else ERROR,
                "warn" if severe is None else "fail",
                option_for(
                    "validation.drift.features", distance.feature, "{warn: 1, fail: 1}" if severe is None else "{fail: 1}"
                ),
            )
        )
    return findings


def _exceeded(distance: Distance, bounds: Mapping[str, float]) -> float | None:
    """Returns the bound that a distance exceeds."""
    return next((bound for measure, bound in bounds.items() if (getattr(distance, measure) or 0.0) > bound), None)


def schemas_bounds(schema: schema_pb2.Schema, check: str) -> dict[str, dict[str, float]]:
    """Returns feature -> measure -> bound from the schema's drift or skew comparators.

    A comparator bounds the Jensen-Shannon divergence; the distance is its square root.
    """
    features: dict[str, dict[str, float]] = {}
    for feature in schema.feature:
        comparator = feature.skew_comparator if check == SKEW else feature.drift_comparator
        divergence, norm = comparator.jensen_shannon_divergence.threshold, comparator.infinity_norm.threshold
        bounds = {"jensen_shannon": divergence**0.5, "l_infinity": norm}
        if any(bounds.values()):
            features[feature.name] = {measure: bound for measure, bound in bounds.items() if bound}
    return features


def column_findings(
    now: Statistics,
    before: Statistics,
    split: str,
    settings: DataGateSettings,
    ignored: set[str],
    known: tuple[Collection[str], Collection[str]] = ((), ()),
) -> list[Finding]:
    """Returns findings for columns that are missing, empty, new or of another type compared with the champion's training data.

    Args:
        now: current statistics.
        before: the champion's training split.
        split: name of the current split.
        settings: `excluded` and `on_anomaly`, as in `schema_findings`.
        ignored: features to skip.
        known: columns of the current data and of the champion's data, including those without values in a split.
    """
    mine, theirs = features_of(now), features_of(before)
    findings = []

    def add(feature: str, anomaly: str, expected: str, seen: str, share: float, severity: str) -> None:
        action = action_for(feature, severity, settings.on_anomaly)
        remedy = remedy_for(feature, reviewed=False)
        findings.append(Finding(CHAMPION, split, feature, anomaly, expected, seen, share, severity, action, remedy))

    for name in sorted(theirs.keys() - mine.keys() - ignored):
        # Excluded on purpose in the config.
        severity = WARNING if name in settings.excluded else ERROR
        trained_on = f"a {type_name(theirs[name])} column, as in the champion's training data"
        if name not in known[0]:
            add(name, "column is gone", trained_on, "no such column", 1.0, severity)
        elif is_new(rows_of(now), rows_of(now), rows_of(before), common(theirs[name]).num_missing, len(theirs)):
            add(name, "column is empty", trained_on, "no value in any row", 1.0, severity)
    for name in sorted(mine.keys() - theirs.keys() - ignored - set(known[1])):
        seen = f"a {type_name(mine[name])} column, {percent(present_share(mine[name]))} present"
        add(name, "new column", "no such column in the champion's training data", seen, present_share(mine[name]), WARNING)
    for name in sorted(mine.keys() & theirs.keys() - ignored):
        if _of_another_type(mine[name], theirs[name]):
            add(name, "another type", type_name(theirs[name]), type_name(mine[name]), 1.0, ERROR)
    return findings
