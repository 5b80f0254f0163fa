"""Compares requests with a model's training data by the data gate's distances and findings, and renders the page."""

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
    """Drift between requests and the training data.

    Attributes:
        rows: number of rows of the requests.
        distances: distances by feature, the largest first.
        findings: distances above their limits and above chance.
        missing: features absent from the requests, such as those redacted by the request log.
        statistics: statistics of the training data and of the requests, for the page.
    """

    rows: int
    distances: Sequence[Distance]
    findings: Sequence[Finding]
    missing: Sequence[str]
    statistics: dict[str, Statistics]

    def verdict(self) -> str:
        """Returns a one-line summary of the findings."""
        if self.findings:
            return f"{len(self.findings)} features have changed" if len(self.findings) > 1 else "1 feature has changed"
        unjudged = sum(d.reason == TOO_FEW for d in self.distances)
        if unjudged and unjudged == len(self.distances):
            return TOO_FEW
        return "no feature has changed" + (f"; {unjudged} feature{'s' * (unjudged > 1)}: {TOO_FEW}" if unjudged else "")


def served_drift(model: Path, patterns: Sequence[str], *, warn: float, fail: float) -> ServedDrift:
    """Compares files of raw rows with the model's training data.

    Args:
        model: folder of the MLflow Model.
        patterns: files or globs, in any format that ingest reads.
        warn: distance above which a feature is reported, 0 to 1.
        fail: distance above which a feature fails, 0 to 1.

    Raises:
        UserError: there are no rows or none of the model's columns, or `warn` is above `fail`.
    """
    if warn > fail:
        raise UserError(f"--warn: {warn} is above --fail {fail}; give a lower one.")
    folder = training_data(model)
    summary = DatasetSummary.load(str(folder))
    trained_on = read_statistics(folder / "statistics.pb")
    requests = sample_statistics(patterns, summary, None, key="REQUESTS")
    wanted = set(features_of(trained_on)) - set(summary.no_features)
    known = wanted & set(features_of(requests))
    if not known:
        raise UserError(f"REQUESTS: none of the model's columns is present. Columns: {', '.join(sorted(wanted))}.")
    found = distances(requests, trained_on, DRIFT, _WHERE, _others(requests, known))
    limits = DriftConfig(warn=warn, fail=fail)
    columns = column_findings(requests, trained_on, _WHERE, _SETTINGS, set(summary.no_features))
    texts = [replace(f, check=DRIFT) for f in columns if f.anomaly == "another type"]
    # The remedies name options of a pipeline's config, which do not apply here.
    findings = [replace(f, remedy="") for f in merged(texts + distance_findings(found, limits))]
    shown = {"training": trained_on, "requests": requests}
    by_size = sorted(found, key=lambda d: (not d.judged, -d.largest))
    return ServedDrift(rows_of(requests), by_size, findings, sorted(wanted - known), shown)


def _others(requests: Statistics, known: Collection[str]) -> set[str]:
    return set(features_of(requests)) - set(known)


def drift_html(title: str, drift: ServedDrift) -> str:
    """Returns the HTML page of a drift comparison."""
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
    head = ("feature", "Jensen-Shannon", "L-infinity", "expected by chance", "")
    sections: list[dict[str, Any]] = [
        {"title": "Verdict", "good": not failed, "verdict": drift.verdict(), "lines": [f.sentence() for f in drift.findings]},
        {"title": "Distances", "table": table(head, rows)},
        *statistics_sections(drift.statistics),
    ]
    if drift.missing:
        sections.insert(1, {"title": "Not compared", "text": f"Not in the requests: {', '.join(drift.missing)}."})
    return render(title, f"{drift.rows:,} rows of requests against the training data", sections)
