"""Converts TFDV's anomalies to findings: the expected value, the observed value and the share of rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from switchyard.components.data.schema import domain
from switchyard.components.data_gate.chance import is_below, is_new
from switchyard.components.data_gate.config import Action, AnomalyActions, DataGateSettings
from switchyard.components.data_gate.findings import ERROR, SCHEMA, WARNING, Finding, listed, percent, remedy_for
from switchyard.components.data_gate.statistics import (
    Statistics,
    common,
    features_of,
    has_values,
    is_numeric,
    present_share,
    rows_of,
    share_outside,
    type_name,
)

UNEXPECTED_VALUES = "unexpected string values"
_TYPE = anomalies_pb2.AnomalyInfo.Type
# Values that the training split lacks.
_OF_VALUES = {
    "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
    "INT_TYPE_BIG_INT",
    "INT_TYPE_SMALL_INT",
    "FLOAT_TYPE_BIG_FLOAT",
    "FLOAT_TYPE_SMALL_FLOAT",
    "FEATURE_TYPE_LOW_UNIQUE",
    "FEATURE_TYPE_HIGH_UNIQUE",
    "BOOL_TYPE_UNEXPECTED_STRING",
    "BOOL_TYPE_BIG_INT",
    "BOOL_TYPE_SMALL_INT",
}
_RANGE = {"INT_TYPE_BIG_INT", "INT_TYPE_SMALL_INT", "FLOAT_TYPE_BIG_FLOAT", "FLOAT_TYPE_SMALL_FLOAT"}
_BOOLEAN = {"BOOL_TYPE_BIG_INT", "BOOL_TYPE_SMALL_INT"}
_PRESENCE = {"FEATURE_TYPE_LOW_FRACTION_PRESENT", "FEATURE_TYPE_LOW_NUMBER_PRESENT", "FEATURE_TYPE_NOT_PRESENT"}
_ABSENT = {"FEATURE_TYPE_NOT_PRESENT", "FEATURE_TYPE_LOW_NUMBER_PRESENT", "SCHEMA_MISSING_COLUMN"}


_WRONG_TYPE = ("INT_TYPE", "FLOAT_TYPE", "ENUM_TYPE", "BOOL_TYPE", "STRING_TYPE", "UNEXPECTED_DATA_TYPE")


def schema_findings(
    anomalies: anomalies_pb2.Anomalies,
    schema: schema_pb2.Schema,
    statistics: Statistics,
    split: str,
    settings: DataGateSettings,
    train: Statistics | None = None,
) -> list[Finding]:
    """Returns the findings of one split, without those that chance explains.

    Args:
        anomalies: the split's anomalies from TFDV or TFX's ExampleValidator.
        schema: the schema that the split was validated against.
        statistics: statistics of the split.
        split: name of the split.
        settings: `curated` (a reviewed schema), `excluded` (columns excluded on purpose), `on_anomaly` and `split_paths` (the
            splits are separate inputs, not split at random by ingest).
        train: statistics of the training split, when `split` is another one.
    """
    in_schema = {f.name: f for f in schema.feature}
    in_data, trained = features_of(statistics), features_of(train) if train else {}
    found = []
    for name, info in sorted(anomalies.anomaly_info.items()):
        feature = info.path.step[0] if info.path.step else name
        for reason in info.reason or [info]:
            kind = _TYPE.Name(reason.type) if hasattr(reason, "type") else ""
            if kind == "SCHEMA_MISSING_COLUMN" and feature in settings.excluded:
                continue
            wanted, found_here = in_schema.get(feature), in_data.get(feature)
            expected, seen, share = _explain(kind, reason, wanted, found_here, schema, statistics)
            if found_here is not None and not has_values(found_here) and kind.startswith(_WRONG_TYPE):
                continue  # a column without values has no type
            rows = None if train is None else _Rows(rows_of(statistics), rows_of(train), len(in_schema), not settings.split_paths)
            if rows and _is_chance(kind, wanted, found_here, trained.get(feature), share, rows, reviewed=settings.curated):
                continue
            severity = anomalies_pb2.AnomalyInfo.Severity.Name(info.severity).lower()
            if not settings.curated and _is_weak(kind, in_schema.get(feature)):
                severity = WARNING
            found.append(
                Finding(
                    SCHEMA,
                    split,
                    feature,
                    (reason.short_description or kind).lower(),
                    expected,
                    seen,
                    share,
                    ERROR if severity == "unknown" else severity,
                    action_for(feature, severity, settings.on_anomaly),
                    remedy_for(feature, reviewed=settings.curated),
                )
            )
    whole = anomalies.dataset_anomaly_info
    severity = anomalies_pb2.AnomalyInfo.Severity.Name(whole.severity).lower()
    found += [
        Finding(
            SCHEMA,
            split,
            "",
            reason.short_description.lower(),
            "see the schema's dataset constraints",
            reason.description.strip().rstrip("."),
            None,
            ERROR if severity == "unknown" else severity,
            action_for("", severity, settings.on_anomaly),
            "--set validation.on_anomaly.error=warn",
        )
        for reason in whole.reason
    ]
    return found


class _Rows(NamedTuple):
    """Row counts of a split and of the training split, the number of features, and whether ingest split one input at random."""

    here: int
    trained: int
    features: int
    at_random: bool


def _is_chance(kind: str, wanted: Any, seen: Any, trained: Any, share: float | None, rows: _Rows, *, reviewed: bool) -> bool:
    """Whether a random split explains the anomaly. A reviewed schema's constraints hold for every row."""
    present = common(seen).num_non_missing if seen is not None else 0
    present_trained = common(trained).num_non_missing if trained is not None else 0
    explained = False
    if kind == "FEATURE_TYPE_LOW_UNIQUE":
        explained = rows.at_random or rows.here < rows.trained  # fewer rows have fewer distinct values
    elif rows.at_random and not reviewed and kind in _ABSENT | _OF_VALUES | {"SCHEMA_NEW_COLUMN"}:
        explained = True  # holds even when similar rows form groups
    elif kind in _ABSENT:
        explained = present > 0 or not is_below(0, rows.here, present_trained / rows.trained, rows.features)
    elif kind == "FEATURE_TYPE_LOW_FRACTION_PRESENT" and reviewed and wanted is not None:
        explained = not is_below(present, rows.here, wanted.presence.min_fraction, rows.features)
    elif kind == "SCHEMA_NEW_COLUMN" and not reviewed:
        explained = not present_trained and not is_new(present, rows.here, rows.trained, 0, rows.features)
    elif kind in _OF_VALUES and not reviewed and share is not None:
        once = 0 if trained is None or is_numeric(trained) else _singletons(trained)
        explained = not is_new(share * rows.here, rows.here, rows.trained, once, rows.features)
    return explained


def _singletons(feature: Any) -> int:
    return sum(b.sample_count == 1 for b in feature.string_stats.rank_histogram.buckets)


def presence_findings(statistics: Statistics, train: Statistics, split: str, settings: DataGateSettings) -> list[Finding]:
    """Returns the features that every training row has and that more rows of this split lack than chance explains.

    An inferred schema does not report these: it allows missing values that occur in any split, see `inferred_schema`.
    """
    found = []
    here, trained = features_of(statistics), features_of(train)
    for name, feature in sorted(trained.items()):
        seen = here.get(name)
        missing = rows_of(statistics) if seen is None else common(seen).num_missing
        if common(feature).num_missing or not is_new(missing, rows_of(statistics), rows_of(train), 0, len(trained)):
            continue
        share = missing / rows_of(statistics)
        words = ("values are missing", "a value in every row, as in train", f"{percent(1 - share)} of rows have one")
        action = action_for(name, ERROR, settings.on_anomaly)
        found.append(Finding(SCHEMA, split, name, *words, share, ERROR, action, remedy_for(name, reviewed=False)))
    return found


def _is_weak(kind: str, expected: Any) -> bool:
    """Whether this is no error under an inferred schema, which does not rule out other values."""
    if kind in _PRESENCE | {"SCHEMA_MISSING_COLUMN"}:
        # The training split has missing values too, so the model can handle them.
        return expected is not None and expected.presence.min_fraction < 1
    return kind in _OF_VALUES


def action_for(feature: str, severity: str, on_anomaly: AnomalyActions) -> Action:
    """Returns the action, fail or warn: the feature's own setting, else the one for the severity."""
    return on_anomaly.features.get(feature, on_anomaly.warning if severity == WARNING else on_anomaly.error)


def _explain(
    kind: str, reason: Any, expected: Any, seen: Any, schema: Any, statistics: Statistics
) -> tuple[str, str, float | None]:
    """Returns the expected value, the observed value and the share of rows."""
    description = reason.description.strip().rstrip(".")
    if kind == "SCHEMA_MISSING_COLUMN":
        return f"a {schema_pb2.FeatureType.Name(expected.type)} column", "no such column", 1.0
    if kind == "SCHEMA_NEW_COLUMN":
        return "no such column", f"a {type_name(seen)} column", present_share(seen)
    found: tuple[str, str, float | None] = ("see the schema", description, None)
    if expected is not None and seen is not None:
        if kind == "ENUM_TYPE_UNEXPECTED_STRING_VALUES":
            found = _unexpected_values(description, expected, seen, schema, statistics)
        elif kind in _BOOLEAN and is_numeric(seen):
            share = max(share_outside(seen, 0, 1), 1 / max(1, rows_of(statistics)))
            found = ("0 or 1", f"{seen.num_stats.min:g} to {seen.num_stats.max:g}", share)
        elif kind in _RANGE and is_numeric(seen):
            found = _out_of_range(expected, seen, statistics)
        elif kind in _PRESENCE:
            needed = f"a value in at least {percent(expected.presence.min_fraction)} of rows"
            found = (needed, percent(present_share(seen)), 1 - present_share(seen))
        elif kind.startswith(_WRONG_TYPE):
            found = (f"type {schema_pb2.FeatureType.Name(expected.type)}", description, None)
    return found


def _unexpected_values(
    description: str, expected: Any, seen: Any, schema: Any, statistics: Statistics
) -> tuple[str, str, float | None]:
    allowed = domain(schema, expected)
    known = set(allowed)
    buckets = [] if is_numeric(seen) else seen.string_stats.rank_histogram.buckets
    values = {b.label: b.sample_count for b in buckets if b.label not in known}
    if not values:
        return listed(allowed), description, None
    return listed(allowed), listed(list(values)), sum(values.values()) / max(1, rows_of(statistics))


def _out_of_range(expected: Any, seen: Any, statistics: Statistics) -> tuple[str, str, float | None]:
    low, high = _range(expected)
    bounds = " to ".join("any" if b is None else f"{b:g}" for b in (low, high))
    # The histogram's buckets are wide, but a value outside of the range is at least one row.
    share = max(share_outside(seen, low, high), 1 / max(1, rows_of(statistics)))
    return f"values from {bounds}", f"{seen.num_stats.min:g} to {seen.num_stats.max:g}", share


def _range(feature: Any) -> tuple[float | None, float | None]:
    for kind in ("int_domain", "float_domain"):
        if feature.HasField(kind):
            domain = getattr(feature, kind)
            return (
                float(domain.min) if domain.HasField("min") else None,
                float(domain.max) if domain.HasField("max") else None,
            )
    return None, None
