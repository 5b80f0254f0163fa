"""Artifact types beside TFX's."""

from __future__ import annotations

from tfx.types.artifact import Artifact

# Property of a model: why it is no result of training, see `components.training.ledger.diverged`; empty for all others.
DIVERGED = "diverged"


class Baseline(Artifact):
    """What a run is compared with: `baseline.json`, `champion/` (its bundle), `previous/<split>.pb` (statistics)."""

    TYPE_NAME = "Baseline"


class DataVerdict(Artifact):
    """The data gate's verdict: `verdict.json`."""

    TYPE_NAME = "DataVerdict"


class RunReport(Artifact):
    """The page on one run: `report.html`."""

    TYPE_NAME = "RunReport"
