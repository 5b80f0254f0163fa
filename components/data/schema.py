"""A schema without TFDV: domains, environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

# In the annotation of a feature whose rows of the training split are all without a value.
NO_VALUE = "no value in the training split"


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
