"""What the data gate found, and its verdict."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "verdict.json"
ERROR, WARNING = "error", "warning"
SCHEMA, CHAMPION, DRIFT, SKEW, SPLITS, LEAKAGE = "schema", "champion", "drift", "skew", "splits", "leakage"
GROWS = "grows with time"
ACCEPT = "(or accept it: switchyard schema accept)"
_SHOWN = 20
_LINES = re.compile(r"\s*\n\s*")


@dataclass(frozen=True)
class Finding:
    """A problem found in the data.

    Attributes:
        check: schema, champion (against the champion's columns), drift, skew, splits (one against another) or leakage.
        where: the split, or the two sides of the comparison.
        feature: name of the feature; empty for the whole split.
        anomaly: short description.
        expected, seen: descriptions of the expected and the observed values.
        share: share of the split's rows, 0 to 1; None where it does not apply.
        severity: error or warning.
        action: fail or warn, from the config.
        remedy: the command's option that lets it pass.
        also: short descriptions of other checks' findings on the same cause.
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
    also: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """Returns the finding in one line."""
        subject = f"{self.feature} ({self.where})" if self.feature else self.where
        share = "" if self.share is None else f" Rows: {percent(self.share)}."
        also = f" Also: {'; '.join(self.also)}." if self.also else ""
        option = f" Option: {_LINES.sub(', or ', self.remedy)}" if self.remedy else ""
        return f"{self.check}: {subject}: {self.anomaly}. Expected: {self.expected}. Seen: {self.seen}.{share}{also}{option}"


@dataclass(frozen=True)
class Distance:
    """The distance between two distributions of one feature, from 0 (identical) to 1.

    Attributes:
        check: drift, skew or splits.
        where: the two sides of the comparison.
        feature: name of the feature.
        jensen_shannon: Jensen-Shannon distance, the square root of the divergence in bits.
        l_infinity: largest difference in one value's share; None for numbers.
        noise: largest distance by chance alone at these numbers of rows and features.
        judged: False where the distance is not meaningful.
        reason: why it is not meaningful.
        now, before: short descriptions of both distributions.
    """

    check: str
    where: str
    feature: str
    jensen_shannon: float | None
    l_infinity: float | None
    noise: float
    judged: bool = True
    reason: str = ""
    now: str = ""
    before: str = ""

    @property
    def largest(self) -> float:
        """The larger of the two distances."""
        return max(self.jensen_shannon or 0.0, self.l_infinity or 0.0)


@dataclass(frozen=True)
class Verdict:
    """All findings, and the distances behind them.

    Attributes:
        notes: checks that were not possible, and why.
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
        """Whether no finding stops the run."""
        return not self.failures

    def message(self) -> str:
        """Returns the message of the error that stops the run."""
        failures = self.failures
        lines = [f"the data gate stopped the run: {len(failures)} finding{'s' * (len(failures) > 1)}."]
        lines += [f"  - {f.sentence()}" for f in failures[:_SHOWN]]
        if len(failures) > _SHOWN:
            lines.append(f"  ... and {len(failures) - _SHOWN} more: see the report in MLflow.")
        lines.append("Fix the data, or accept a finding with its option.")
        return "\n".join(lines)

    def save(self, folder: str) -> None:
        """Writes the verdict to a folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, FILE).write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str) -> Verdict:
        """Reads the verdict from a folder."""
        loaded: Mapping[str, Any] = json.loads(Path(folder, FILE).read_text(encoding="utf-8"))
        return cls(
            [Finding(**f) for f in loaded["findings"]],
            [Distance(**d) for d in loaded["distances"]],
            list(loaded["notes"]),
        )


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """Returns one finding per feature and cause: the most severe, with the other checks' findings on the same cause in `also`.

    Findings that stop the run come first. A leak explains a feature's growth too, so both merge. Findings on a whole split are
    not merged.
    """
    leaking = {f.feature for f in findings if f.check == LEAKAGE}
    groups: dict[Any, list[Finding]] = {}
    for i, finding in enumerate(sorted(findings, key=_rank)):
        leaks = finding.check == LEAKAGE or (finding.anomaly == GROWS and finding.feature in leaking)
        groups.setdefault((finding.feature, leaks) if finding.feature else i, []).append(finding)
    return sorted((_one(group) for group in groups.values()), key=_rank)


def _rank(finding: Finding) -> tuple[bool, bool]:
    return finding.action != "fail", finding.severity != ERROR


def _one(group: Sequence[Finding]) -> Finding:
    first, *others = group
    also: dict[str, list[str]] = {}
    for other in others:
        anomaly_text = other.anomaly if (other.check, other.anomaly) != (first.check, first.anomaly) else "the same"
        also.setdefault(f"{other.check}: {anomaly_text}", []).append(other.where)
    listed_too = [f"{anomaly_text} ({'; '.join(dict.fromkeys(where))})" for anomaly_text, where in also.items()]
    remedies = [f.remedy for f in group if f.remedy and (f.action == "fail" or f is first)]
    options = sorted({r.removesuffix(ACCEPT).strip() for r in remedies})
    accept = [ACCEPT] * any(r.endswith(ACCEPT) for r in remedies)
    return dataclasses.replace(first, also=listed_too, remedy=" ".join([*options, *accept]))


def remedy_for(feature: str, *, reviewed: bool) -> str:
    """Returns the option that lets a feature's anomalies pass; a reviewed schema can be changed instead."""
    option = option_for("validation.on_anomaly.features", feature, "warn")
    return f"{option} {ACCEPT}" if reviewed else option


def option_for(key: str, feature: str, value: str) -> str:
    """Returns the command's option that sets a feature's own value, in YAML, under `key`."""
    if re.fullmatch(r"[\w-]+", feature):
        return _option(f"{key}.{feature}={value}")
    return _option(f"{key}={{{json.dumps(feature, ensure_ascii=False)}: {value}}}")


def exclude_option(feature: str) -> str:
    """Returns the command's option that excludes a feature."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", feature)
    return _option(f"data.exclude=[{feature if plain else json.dumps(feature, ensure_ascii=False)}]")


def _option(text: str) -> str:
    return f"--set {shlex.quote(text)}" if "'" in text else f"--set '{text}'"


def percent(share: float) -> str:
    """Returns a share formatted for display."""
    return f"{share:.0%}" if share in (0, 1) or share >= 0.1 else f"{share:.2g}".rstrip(".") if share < 1e-4 else f"{share:.2%}"


def listed(values: Sequence[Any], most: int = 8) -> str:
    """Returns a comma-separated list, truncated to `most` values."""
    shown = ", ".join(str(v) for v in values[:most])
    return f"{shown}, ... ({len(values)} in all)" if len(values) > most else shown
