"""Whether the champion can judge the new rows, as findings: said before training, not after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.baseline.contents import BaselineContents
from components.validation.anomalies import action_for
from components.validation.findings import CHAMPION, WARNING, Finding


def comparability_findings(baseline: BaselineContents, split: str, settings: Mapping[str, Any]) -> list[Finding]:
    """Returns one finding for each reason why the champion cannot judge some rows, or one that it can judge too few.

    Args:
        baseline: what the baseline stage found.
        split: that models are judged by.
        settings: `comparable`, `incomparable_champion` and `on_anomaly`.
    """
    if baseline.version is None:
        return []
    where, who = f"{split}, before training", f"version {baseline.version} of {baseline.name}"
    if why := baseline.why_not(settings["comparable"]):
        keeps = settings["incomparable_champion"] == "keep"
        column = baseline.misfits[0].column if baseline.misfits else ""
        return [
            Finding(
                CHAMPION,
                where,
                column,
                why,
                f"rows that {who} can judge, to compare it with what is trained now",
                "the candidate will be kept as challenger, whatever comes of it"
                if keeps
                else "it is replaced without a comparison",
                1 - baseline.share,
                WARNING,
                action_for(column, WARNING, settings["on_anomaly"]),
                "--set evaluation.incomparable_champion=replace",
            )
        ]
    return [
        Finding(
            CHAMPION,
            where,
            m.column,
            f"the champion cannot judge {m.rows:,} of {baseline.rows:,} rows",
            f"values as {who} was trained on; both models are compared on the other rows",
            m.reason,
            m.rows / baseline.rows,
            WARNING,
            action_for(m.column, WARNING, settings["on_anomaly"]),
            f"--set 'validation.on_anomaly.features.{m.column}=warn'",
        )
        for m in baseline.misfits
    ]
