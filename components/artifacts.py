"""Artifact types in addition to TFX's."""

from __future__ import annotations

from tfx.types.artifact import Artifact

# Property of a model: why training produced no usable result, see `components.training.ledger.diverged`; empty for other models.
DIVERGED = "diverged"

# Property of a model that is an ensemble: its members and their weights, as a text.
MEMBERS = "members"

# Property of an artifact that its content identifies, wherever it lies: for cache keys and for the names of checkpoints.
CONTENT = "content"


def identity(artifact: Artifact) -> str:
    """Returns the content that identifies an artifact, else its URI."""
    return artifact.get_string_custom_property(CONTENT) or str(artifact.uri)


class Baseline(Artifact):
    """The data and model to compare a run with: `baseline.json`, `champion/` (bundle), `previous/<split>.pb` (statistics)."""

    TYPE_NAME = "Baseline"


class StartingPoint(Artifact):
    """The registered version that a training starts from: `start.json`, its weights and vocabularies."""

    TYPE_NAME = "StartingPoint"


class DataVerdict(Artifact):
    """The data gate's verdict: `verdict.json`."""

    TYPE_NAME = "DataVerdict"


class RunReport(Artifact):
    """The report on one run: `report.html`."""

    TYPE_NAME = "RunReport"
