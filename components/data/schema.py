"""Schema helpers that do not need TFDV: domains and environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

# Annotation of a feature without any value in the training split.
NO_VALUE = "no value in the training split"


def environment_of(schema: schema_pb2.Schema, wanted: str | None) -> str | None:
    """Returns the environment for validating examples: `wanted` if set, else `TRAINING` when the schema has it, else None."""
    return wanted or ("TRAINING" if "TRAINING" in schema.default_environment else None)


def belongs(feature: Any, environment: str | None, default: Sequence[str]) -> bool:
    """Returns whether a feature belongs to an environment, by TFDV's rule: default environments, exclusions, inclusions."""
    if environment is None or environment in feature.in_environment:
        return True
    return environment in default and environment not in feature.not_in_environment


def domain(schema: schema_pb2.Schema, feature: Any) -> list[str]:
    """Returns a text feature's allowed values; an empty list allows any value."""
    if feature.HasField("string_domain"):
        return list(feature.string_domain.value)
    return [v for d in schema.string_domain if d.name == feature.domain for v in d.value]
