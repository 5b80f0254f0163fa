"""Reports before training whether the champion can score the new rows."""

from __future__ import annotations

from collections.abc import Sequence

from switchyard.components.baseline.contents import BaselineContents
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate.anomalies import action_for
from switchyard.components.data_gate.config import DataGateSettings
from switchyard.components.data_gate.findings import CHAMPION, WARNING, Finding, remedy_for
from switchyard.components.ingest.class_lists import lists_classes

# The anomaly that `drift.column_findings` reports for a column of another type.
_TYPE = "another type"


def with_comparability(
    findings: Sequence[Finding], baseline: BaselineContents, summary: DatasetSummary, settings: DataGateSettings
) -> list[Finding]:
    """Returns the findings without type changes that the champion can handle, plus those on rows that it cannot score.

    When the label differs, the candidate becomes challenger and that is reported; it is no fault of the data.
    """

    def settled(finding: Finding) -> bool:
        if finding.check != CHAMPION or finding.anomaly != _TYPE or baseline.version is None:
            return False
        return finding.feature in summary.labels or _takes(baseline, finding.feature, settings)

    kept = [f for f in findings if not settled(f)]
    return [*kept, *comparability_findings(baseline, summary.held_out, settings)]


def uncompared_columns(champions: DatasetSummary, summary: DatasetSummary) -> set[str]:
    """Returns columns in one of the data sets alone that no model reads: classes that a label column lists, sample weights.

    Models with other classes are not compared, which the evaluation reports; it is no fault of the data either.
    """
    found: set[str] = set()
    for mine, other in ((champions, summary), (summary, champions)):
        listed = mine.targets if lists_classes(mine.task, mine.label, mine.targets) else []
        found |= {*listed, *filter(None, [mine.sample_weight])} - other.columns.keys()
    return found


def _takes(baseline: BaselineContents, column: str, settings: DataGateSettings) -> bool:
    """Whether the champion can score enough rows of a column to be compared, regardless of the column's type in statistics."""
    if baseline.obstacle or not baseline.rows:
        return False
    misfits = sum(m.rows for m in baseline.misfits if m.column == column)
    return bool(misfits / baseline.rows <= 1 - settings.comparable)


def comparability_findings(baseline: BaselineContents, split: str, settings: DataGateSettings) -> list[Finding]:
    """Returns one finding per reason why the champion cannot score some rows, or a single one when it can score too few.

    Args:
        baseline: contents of the baseline stage's output.
        split: the split that models are evaluated on.
        settings: `comparable`, `incomparable_champion` and `on_anomaly`.
    """
    if baseline.version is None:
        return []
    where, who = f"{split}, before training", f"version {baseline.version} of {baseline.name}"
    if why := baseline.why_not(settings.comparable):
        keeps = settings.incomparable_champion == "keep"
        return [
            Finding(
                CHAMPION,
                where,
                "",
                why,
                f"rows that {who} can predict, so that it can be compared with the new model",
                "the candidate will be kept as challenger, whatever its result"
                if keeps
                else "the champion is replaced without a comparison",
                1 - baseline.share,
                WARNING,
                action_for("", WARNING, settings.on_anomaly),
                "--set evaluation.incomparable_champion=replace" if keeps else "",
            )
        ]
    return [
        Finding(
            CHAMPION,
            where,
            m.column,
            f"the champion cannot judge {m.rows:,} of {baseline.rows:,} rows",
            f"values as in the training data of {who}; both models are compared on the other rows",
            m.reason,
            m.rows / baseline.rows,
            WARNING,
            action_for(m.column, WARNING, settings.on_anomaly),
            remedy_for(m.column, reviewed=False),
        )
        for m in baseline.misfits
    ]
