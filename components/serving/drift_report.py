"""What a model is asked in service, against what it was trained on: the data gate's distances and findings, one page."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from switchyard.components.bundle.model import training_data
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate.config import DataGateSettings, DriftConfig
from switchyard.components.data_gate.drift import TOO_FEW, column_findings, distance_findings, distances
from switchyard.components.data_gate.findings import DRIFT, Distance, Finding, merged
from switchyard.components.data_gate.serving_sample import sample_statistics
from switchyard.components.data_gate.statistics import Statistics, features_of, read_statistics, rows_of
from switchyard.components.errors import UserError
from switchyard.components.pages.page import number, render, table
from switchyard.components.pages.statistics import statistics_sections

_WHERE = "requests, against the training data"
_SETTINGS = DataGateSettings()


@dataclass(frozen=True)
class ServedDrift:
    """How far requests lie from the training data.

    Attributes:
        rows: of the requests.
        distances: by feature, the largest first.
        findings: those above their limits and above chance.
        missing: features that the requests do not hold: left out by the log's redaction.
        statistics: of both, for the page.
    """

    rows: int
    distances: Sequence[Distance]
    findings: Sequence[Finding]
    missing: Sequence[str]
    statistics: dict[str, Statistics]

    def verdict(self) -> str:
        """Returns the outcome in a few words."""
        if self.findings:
            return f"{len(self.findings)} features have changed"
        untold = sum(d.reason == TOO_FEW for d in self.distances)
        if untold and untold == len(self.distances):
            return TOO_FEW
        return "no feature has changed" + (f"; {untold} features: {TOO_FEW}" if untold else "")


def served_drift(model: Path, patterns: Sequence[str], *, warn: float, fail: float) -> ServedDrift:
    """Compares files of raw rows with the model's training data.

    Args:
        model: folder of the MLflow Model.
        patterns: files or globs, in any format that ingest reads.
        warn: distance that is a finding, 0 to 1.
        fail: distance that is a severe one.

    Raises:
        UserError: no rows, none of the model's columns, or the lower limit is above the other one.
    """
    if warn > fail:
        raise UserError(f"--warn: {warn} is above --fail {fail}; give a lower one.")
    folder = training_data(model)
    summary = DatasetSummary.load(str(folder))
    trained_on = read_statistics(folder / "statistics.pb")
    requests = sample_statistics(patterns, summary, None, key="REQUESTS")
    wanted = set(features_of(trained_on)) - {summary.label}
    known = wanted & set(features_of(requests))
    if not known:
        raise UserError(f"REQUESTS: none of the model's columns is there. Columns: {', '.join(sorted(wanted))}.")
    found = distances(requests, trained_on, DRIFT, _WHERE, _others(requests, known))
    limits = DriftConfig(warn=warn, fail=fail)
    columns = column_findings(requests, trained_on, _WHERE, _SETTINGS, {summary.label})
    texts = [replace(f, check=DRIFT) for f in columns if f.anomaly == "another type"]
    # Its options are those of a pipeline.
    findings = [replace(f, remedy="") for f in merged(texts + distance_findings(found, limits))]
    shown = {"training": trained_on, "requests": requests}
    by_size = sorted(found, key=lambda d: (not d.judged, -d.largest))
    return ServedDrift(rows_of(requests), by_size, findings, sorted(wanted - known), shown)


def _others(requests: Statistics, known: Collection[str]) -> set[str]:
    return set(features_of(requests)) - set(known)


def drift_html(title: str, drift: ServedDrift) -> str:
    """Returns the page."""
    failed = [f for f in drift.findings if f.action == "fail"]
    rows = [
        [
            d.feature,
            number(d.jensen_shannon),
            number(d.l_infinity),
            number(d.noise),
            next((f.action for f in drift.findings if f.feature == d.feature), d.reason),
        ]
        for d in drift.distances
    ]
    head = ("feature", "Jensen-Shannon", "L-infinity", "chance gives up to", "")
    sections: list[dict[str, Any]] = [
        {"title": "Verdict", "good": not failed, "verdict": drift.verdict(), "lines": [f.sentence() for f in drift.findings]},
        {"title": "Distances", "table": table(head, rows)},
        *statistics_sections(drift.statistics),
    ]
    if drift.missing:
        sections.insert(1, {"title": "Not compared", "text": f"Not in the requests: {', '.join(drift.missing)}."})
    return render(title, f"{drift.rows:,} rows of requests against the training data", sections)
