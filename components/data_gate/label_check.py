"""Checks the label's values against a reviewed schema before any stage runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from switchyard.components.data.schema import domain
from switchyard.components.data_gate.anomalies import action_for
from switchyard.components.data_gate.config import AnomalyActions
from switchyard.components.data_gate.findings import ERROR, SCHEMA, Finding, Verdict, listed, remedy_for


def check_label_values(path: Path, label: str, counts: Mapping[str, int], on_anomaly: AnomalyActions) -> Verdict:
    """Returns a verdict on the label's values alone.

    Args:
        path: path of the reviewed schema; an unreadable one passes here and is reported elsewhere.
        label: name of the label column.
        counts: value -> rows.
        on_anomaly: the config's actions on anomalies.
    """
    try:
        schema = text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        return Verdict([])
    feature = next((f for f in schema.feature if f.name == label), None)
    allowed = domain(schema, feature) if feature else []
    unexpected = {v: n for v, n in counts.items() if v not in allowed}
    action = action_for(label, ERROR, on_anomaly)
    if not allowed or not unexpected:
        return Verdict([])
    share = sum(unexpected.values()) / sum(counts.values())
    finding = Finding(
        SCHEMA,
        "label",
        label,
        "unexpected string values",
        listed(allowed),
        listed(list(unexpected)),
        share,
        ERROR,
        action,
        remedy_for(label, reviewed=True),
    )
    return Verdict([finding])
