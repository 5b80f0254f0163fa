"""A schema in text form without TFDV: the label's values before anything is run, domains, environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components.data_gate.findings import ERROR, SCHEMA, Finding, Verdict, listed, remedy_for

# In the annotation of a feature whose rows of the training split are all without a value.
NO_VALUE = "no value in the training split"


def check_label_values(path: Path, label: str, counts: Mapping[str, int], on_anomaly: Mapping[str, Any]) -> Verdict:
    """Returns the verdict on the label's values alone.

    Args:
        path: of the reviewed schema; one that cannot be read is judged elsewhere.
        label: the label's column.
        counts: value -> rows.
        on_anomaly: as in the config.
    """
    try:
        schema = text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        return Verdict([])
    feature = next((f for f in schema.feature if f.name == label), None)
    allowed = domain(schema, feature) if feature else []
    unexpected = {v: n for v, n in counts.items() if v not in allowed}
    action = on_anomaly["features"].get(label, on_anomaly["error"])
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


def environment_of(schema: schema_pb2.Schema, wanted: str | None) -> str | None:
    """Returns the environment that examples are checked in: the one wanted, else `TRAINING` when the schema has it."""
    return wanted or ("TRAINING" if "TRAINING" in schema.default_environment else None)


def belongs(feature: Any, environment: str | None, default: Sequence[str]) -> bool:
    """As TFDV has it: a feature is in the default environments but for those left out, and in those named."""
    if environment is None or environment in feature.in_environment:
        return True
    return environment in default and environment not in feature.not_in_environment


def domain(schema: schema_pb2.Schema, feature: Any) -> list[str]:
    """Returns a text feature's allowed values; none: any."""
    if feature.HasField("string_domain"):
        return list(feature.string_domain.value)
    return [v for d in schema.string_domain if d.name == feature.domain for v in d.value]
