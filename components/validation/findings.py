"""What the data gate found, and its verdict."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "verdict.json"
ERROR, WARNING = "error", "warning"
SCHEMA, CHAMPION, DRIFT, SKEW, LEAKAGE = "schema", "champion", "drift", "skew", "leakage"
_SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the data.

    Attributes:
        check: schema, champion (the columns it was trained on), drift, skew or leakage.
        where: the split, or what was compared with what.
        feature: its name; empty for the whole split.
        anomaly: in a few words.
        expected, seen: in words.
        share: share of the split's rows, 0 to 1; None where rows mean nothing.
        severity: error or warning.
        action: fail or warn, as the config says.
        remedy: what lets it pass, an option of the command.
    """

    check: str
    where: str
    feature: str
    anomaly: str
    expected: str
    seen: str
    share: float | None = None
    severity: str = ERROR
    action: str = "fail"
    remedy: str = ""

    def sentence(self) -> str:
        """Returns it in one line."""
        subject = f"{self.feature} ({self.where})" if self.feature else self.where
        share = "" if self.share is None else f" Rows: {percent(self.share)}."
        return f"{self.check}: {subject}: {self.anomaly}. Expected: {self.expected}. Seen: {self.seen}.{share}"


@dataclass(frozen=True)
class Distance:
    """How far one feature's distribution lies from another's, 0 (the same) to 1.

    Attributes:
        check: drift or skew.
        where: what was compared with what.
        feature: its name.
        jensen_shannon: divergence, base 2.
        l_infinity: largest difference of a value's share; None for numbers.
        noise: what chance alone gives at these numbers of rows.
        judged: False for texts of too many values, whose distance says nothing.
    """

    check: str
    where: str
    feature: str
    jensen_shannon: float | None
    l_infinity: float | None
    noise: float
    judged: bool = True

    @property
    def largest(self) -> float:
        """The larger of the two."""
        return max(self.jensen_shannon or 0.0, self.l_infinity or 0.0)


@dataclass(frozen=True)
class Verdict:
    """All findings, and the distances behind them.

    Attributes:
        notes: what could not be checked, and why.
    """

    findings: list[Finding]
    distances: list[Distance] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[Finding]:
        """The findings that stop the run."""
        return [f for f in self.findings if f.action == "fail"]

    @property
    def passed(self) -> bool:
        """Nothing stops the run."""
        return not self.failures

    def message(self) -> str:
        """Returns what the user is told when the run stops."""
        failures = self.failures
        lines = [f"the data gate stopped the run: {len(failures)} finding{'s' * (len(failures) > 1)}."]
        lines += [f"  - {f.sentence()}" for f in failures[:_SHOWN]]
        if len(failures) > _SHOWN:
            lines.append(f"  ... and {len(failures) - _SHOWN} more: see the report in MLflow.")
        remedies = list(dict.fromkeys(f.remedy for f in failures if f.remedy))
        lines.append("Mend the data. If it is right as it is:")
        lines += [f"  {r}" for r in remedies[:5]]
        return "\n".join(lines)

    def save(self, folder: str) -> None:
        """Writes it."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, FILE).write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str) -> Verdict:
        """Reads it."""
        loaded: Mapping[str, Any] = json.loads(Path(folder, FILE).read_text(encoding="utf-8"))
        return cls(
            [Finding(**f) for f in loaded["findings"]],
            [Distance(**d) for d in loaded["distances"]],
            list(loaded["notes"]),
        )


def remedy_for(feature: str, *, reviewed: bool) -> str:
    """Returns what lets a feature's anomalies pass; a reviewed schema can be changed too."""
    option = f"--set 'validation.on_anomaly.features.{feature}=warn'"
    return f"{option}   (or accept it: switchyard schema accept)" if reviewed else option


def percent(share: float) -> str:
    """Returns a share as a person reads it."""
    return f"{share:.0%}" if share in (0, 1) or share >= 0.1 else f"{share:.2g}".rstrip(".") if share < 1e-4 else f"{share:.2%}"


def listed(values: Sequence[Any], most: int = 8) -> str:
    """Returns a list in words, cut short."""
    shown = ", ".join(str(v) for v in values[:most])
    return f"{shown}, ... ({len(values)} in all)" if len(values) > most else shown
