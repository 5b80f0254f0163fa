"""Drift and skew: distances between the distributions of two sets of statistics, by TFDV's comparators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from components.validation.anomalies import action_for
from components.validation.findings import CHAMPION, ERROR, SKEW, WARNING, Distance, Finding, percent, remedy_for
from components.validation.statistics import Statistics, common, features_of, is_numeric, present_share, rows_of, type_name

# TFDV compares numbers by the ten quantile buckets of both sets.
_BUCKETS = 20
# Texts with fewer rows a value are ids or free text: two samples of the same source lie far apart.
_ROWS_A_VALUE = 5
_MEASURE = anomalies_pb2.DriftSkewInfo.Measurement.Type


def distances(now: Statistics, before: Statistics, check: str, where: str, ignored: set[str]) -> list[Distance]:
    """Returns the distance of every feature that both have.

    Args:
        now: current statistics.
        before: what they are compared with.
        check: `drift` or `skew`, for the findings.
        where: what is compared with what, in words.
        ignored: features that are not compared.
    """
    import tensorflow_data_validation as tfdv

    mine, theirs = features_of(now), features_of(before)
    schema = schema_pb2.Schema()
    for name in sorted(mine.keys() & theirs.keys() - ignored):
        if is_numeric(mine[name]) != is_numeric(theirs[name]):
            continue  # the schema's check says so
        feature = schema.feature.add(name=name)
        feature.type = schema_pb2.FeatureType.Value({"STRING": "BYTES"}.get(type_name(mine[name]), type_name(mine[name])))
        feature.drift_comparator.jensen_shannon_divergence.threshold = 1.0
        if not is_numeric(mine[name]):
            feature.drift_comparator.infinity_norm.threshold = 1.0
    measured = tfdv.validate_statistics(now, schema, previous_statistics=before)
    found = []
    for info in measured.drift_skew_info:
        name = info.path.step[0]
        values = {m.type: m.value for m in info.drift_measurements}
        found.append(
            Distance(
                check,
                where,
                name,
                values.get(_MEASURE.JENSEN_SHANNON_DIVERGENCE),
                values.get(_MEASURE.L_INFTY),
                _noise(mine[name], theirs[name], rows_of(now), rows_of(before)),
                _is_judged(mine[name]) and _is_judged(theirs[name]),
            )
        )
    return found


def distance_findings(found: list[Distance], limits: Mapping[str, Any]) -> list[Finding]:
    """Returns the findings of distances above their feature's limits and above chance.

    Args:
        found: see `distances`.
        limits: `warn`, `fail`, and `features`: feature -> the same two.
    """
    findings = []
    for distance in found:
        own = limits["features"].get(distance.feature, limits)
        if not distance.judged or distance.largest <= max(own["warn"], distance.noise):
            continue
        severe = distance.largest > own["fail"]
        measured = [
            f"{name} {value:.2f}"
            for name, value in (("Jensen-Shannon", distance.jensen_shannon), ("L-infinity", distance.l_infinity))
            if value is not None
        ]
        findings.append(
            Finding(
                distance.check,
                distance.where,
                distance.feature,
                "its distribution has changed",
                f"a distance of at most {own['fail' if severe else 'warn']:g}",
                ", ".join(measured),
                None,
                ERROR if severe else WARNING,
                "fail" if severe else "warn",
                f"--set 'validation.drift.features.{distance.feature}={{fail: 1}}'",
            )
        )
    return findings


def with_schemas_limits(limits: Mapping[str, Any], schema: schema_pb2.Schema, check: str) -> dict[str, Any]:
    """Returns the limits with those of the schema's own drift or skew comparators; the config's go before."""
    features = {}
    for feature in schema.feature:
        comparator = feature.skew_comparator if check == SKEW else feature.drift_comparator
        measures = (comparator.infinity_norm, comparator.jensen_shannon_divergence)
        if thresholds := [m.threshold for m in measures if m.threshold]:
            features[feature.name] = {"warn": min(thresholds), "fail": min(thresholds)}
    return {**limits, "features": {**features, **limits["features"]}}


def column_findings(
    now: Statistics, before: Statistics, split: str, settings: Mapping[str, Any], ignored: set[str]
) -> list[Finding]:
    """Returns the columns that the champion was trained on and that are gone, new, or of another type.

    Args:
        now: current statistics.
        before: the champion's training split.
        split: name of the current split.
        settings: `excluded` and `on_anomaly`, as for the schema's anomalies.
        ignored: features that are not compared.
    """
    mine, theirs = features_of(now), features_of(before)
    findings = []

    def add(feature: str, anomaly: str, expected: str, seen: str, share: float, severity: str) -> None:
        action = action_for(feature, severity, settings["on_anomaly"])
        findings.append(
            Finding(
                CHAMPION, split, feature, anomaly, expected, seen, share, severity, action, remedy_for(feature, reviewed=False)
            )
        )

    for name in sorted(theirs.keys() - mine.keys() - ignored):
        # Left out on purpose: the config says so.
        severity = WARNING if name in settings["excluded"] else ERROR
        add(
            name,
            "column is gone",
            f"a {type_name(theirs[name])} column, as the champion was trained on",
            "no such column",
            1.0,
            severity,
        )
    for name in sorted(mine.keys() - theirs.keys() - ignored):
        seen = f"a {type_name(mine[name])} column, {percent(present_share(mine[name]))} present"
        add(name, "new column", "no such column when the champion was trained", seen, present_share(mine[name]), WARNING)
    for name in sorted(mine.keys() & theirs.keys() - ignored):
        if is_numeric(mine[name]) != is_numeric(theirs[name]):
            add(name, "another type", type_name(theirs[name]), type_name(mine[name]), 1.0, ERROR)
    return findings


def _is_judged(feature: Any) -> bool:
    if is_numeric(feature):
        return True
    return bool(common(feature).num_non_missing >= _ROWS_A_VALUE * feature.string_stats.unique)


def _noise(mine: Any, theirs: Any, rows: int, other_rows: int) -> float:
    """Three times what two samples of one distribution are apart.

    The L-infinity distance of shares has a standard deviation of at most sqrt(1/4 (1/n + 1/m)); the Jensen-Shannon
    divergence of k buckets has the mean (k - 1) / (8 ln 2) (1/n + 1/m), by its second-order expansion (chi-square).
    """
    inverse = 1 / max(1, rows) + 1 / max(1, other_rows)
    if is_numeric(mine):
        return 3 * (_BUCKETS - 1) / (8 * math.log(2)) * inverse
    values = max(mine.string_stats.unique, theirs.string_stats.unique, 2)
    return float(max(3 * math.sqrt(inverse / 4), 3 * (values - 1) / (8 * math.log(2)) * inverse))
