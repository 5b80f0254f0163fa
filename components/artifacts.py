"""Artifact types in addition to TFX's."""

from __future__ import annotations

from tfx.types.artifact import Artifact

# Property of a model: why training produced no usable result, see `components.training.ledger.diverged`; empty for other models.
DIVERGED = "diverged"


class Baseline(Artifact):
    """The data and model to compare a run with: `baseline.json`, `champion/` (bundle), `previous/<split>.pb` (statistics)."""

    TYPE_NAME = "Baseline"


class DataVerdict(Artifact):
    """The data gate's verdict: `verdict.json`."""

    TYPE_NAME = "DataVerdict"


class RunReport(Artifact):
    """The report on one run: `report.html`."""

    TYPE_NAME = "RunReport"
