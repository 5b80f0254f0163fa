"""Renders the data page: the gate's findings, distances, classes and distributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate.findings import Verdict, percent
from switchyard.components.pages.page import number, render, table
from switchyard.components.pages.statistics import Statistics, statistics_sections

_MOST_DISTANCES = 12


@dataclass(frozen=True)
class DataPart:
    """Inputs of a report on the data: summary, split -> statistics, and the gate's verdict."""

    summary: DatasetSummary
    statistics: Statistics
    verdict: Verdict


def data_report(data: DataPart) -> str:
    """Returns the page on the data alone, with distributions when the gate stopped the run: no other page shows them then."""
    sections = _gate_sections(data) if data.verdict.passed else data_sections(data)
    return render(f"Data for {data.summary.about}", subtitle(data.summary), sections)


def subtitle(summary: DatasetSummary) -> str:
    """Returns the subtitle of a page about this data."""
    rows = ", ".join(f"{n:,} {split}" for split, n in summary.rows.items())
    positive = "" if summary.positive_class is None else f", positive class {summary.positive_class}"
    return f"{summary.task} on {summary.about}{positive}; examples: {rows}; data {summary.fingerprint[:12]}"


def data_sections(data: DataPart) -> list[dict[str, Any]]:
    """Returns the sections on the gate's findings and the distributions."""
    return [*_gate_sections(data), *statistics_sections(data.statistics)]


def _gate_sections(data: DataPart) -> list[dict[str, Any]]:
    verdict = data.verdict
    head = ("check", "where", "feature", "anomaly", "expected", "seen", "rows", "also", "severity", "action", "option")
    rows = [
        [
            f.check,
            f.where,
            f.feature,
            f.anomaly,
            f.expected,
            f.seen,
            "" if f.share is None else percent(f.share),
            "; ".join(f.also),
            f.severity,
            f.action,
            f.remedy,
        ]
        for f in verdict.findings
    ]
    text = "No anomalies, no drift, no leaks." if not rows else ""
    sections: list[dict[str, Any]] = [
        {
            "title": "Data gate",
            "good": verdict.passed,
            "verdict": "passed" if verdict.passed else "stopped the run",
            "text": text,
            "lines": verdict.notes,
            "table": table(head, rows),
        }
    ]
    if verdict.distances:
        ordered = sorted(verdict.distances, key=lambda d: (not d.judged, -d.largest))
        cells = [
            [
                d.feature,
                d.where,
                number(d.jensen_shannon),
                number(d.l_infinity),
                number(d.noise),
                d.reason,
            ]
            for d in ordered[:_MOST_DISTANCES]
        ]
        columns = ("feature", "compared", "Jensen-Shannon", "L-infinity", "by chance", "")
        note = f"The largest {_MOST_DISTANCES} of {len(ordered)}." if len(ordered) > _MOST_DISTANCES else ""
        sections.append({"title": "Drift and skew", "text": note, "table": table(columns, cells)})
    summary = data.summary
    if summary.classes:
        total = sum(summary.class_counts.values()) or 1
        classes = [[c, number(n), percent(n / total)] for c, n in summary.class_counts.items()]
        sections.append({"title": "Classes in train", "table": table((summary.label, "examples", "share"), classes)})
    return sections
