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
    """One thing that is wrong with the data.

    Attributes:
        check: schema, champion (the columns it was trained on), drift, skew, splits (one against another) or leakage.
        where: the split, or what was compared with what.
        feature: its name; empty for the whole split.
        anomaly: in a few words.
        expected, seen: in words.
        share: share of the split's rows, 0 to 1; None where rows mean nothing.
        severity: error or warning.
        action: fail or warn, as the config says.
        remedy: what lets it pass, an option of the command.
        also: what other checks say of the same, each in a few words.
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
        """Returns it in one line."""
        subject = f"{self.feature} ({self.where})" if self.feature else self.where
        share = "" if self.share is None else f" Rows: {percent(self.share)}."
        also = f" Also: {'; '.join(self.also)}." if self.also else ""
        option = f" Option: {_LINES.sub(', or ', self.remedy)}" if self.remedy else ""
        return f"{self.check}: {subject}: {self.anomaly}. Expected: {self.expected}. Seen: {self.seen}.{share}{also}{option}"


@dataclass(frozen=True)
class Distance:
    """How far one feature's distribution lies from another's, 0 (the same) to 1.

    Attributes:
        check: drift, skew or splits.
        where: what was compared with what.
        feature: its name.
        jensen_shannon: distance, the root of the divergence in bits.
        l_infinity: largest difference of a value's share; None for numbers.
        noise: what chance alone gives up to at these numbers of rows and of features.
        judged: False where the distance says nothing.
        reason: why it says nothing.
        now, before: both distributions in a few words.
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
        """Returns the message with which the run stops."""
        failures = self.failures
        lines = [f"the data gate stopped the run: {len(failures)} finding{'s' * (len(failures) > 1)}."]
        lines += [f"  - {f.sentence()}" for f in failures[:_SHOWN]]
        if len(failures) > _SHOWN:
            lines.append(f"  ... and {len(failures) - _SHOWN} more: see the report in MLflow.")
        lines.append("Mend the data. A finding that is right as it is passes with its option.")
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


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """Returns one finding a feature and cause: the most severe one, which lists what the other checks say of the same.

    What stops the run comes first. Leaks have a cause of their own, which is why a column grows too; findings on a whole split
    stay as they are.
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
        said = other.anomaly if (other.check, other.anomaly) != (first.check, first.anomaly) else "the same"
        also.setdefault(f"{other.check}: {said}", []).append(other.where)
    listed_too = [f"{said} ({'; '.join(dict.fromkeys(where))})" for said, where in also.items()]
    remedies = [f.remedy for f in group if f.remedy and (f.action == "fail" or f is first)]
    options = sorted({r.removesuffix(ACCEPT).strip() for r in remedies})
    accept = [ACCEPT] * any(r.endswith(ACCEPT) for r in remedies)
    return dataclasses.replace(first, also=listed_too, remedy=" ".join([*options, *accept]))


def remedy_for(feature: str, *, reviewed: bool) -> str:
    """Returns what lets a feature's anomalies pass; a reviewed schema can be changed too."""
    option = option_for("validation.on_anomaly.features", feature, "warn")
    return f"{option} {ACCEPT}" if reviewed else option


def option_for(key: str, feature: str, value: str) -> str:
    """Returns the option of the command that sets a feature's own value, in YAML, under `key`."""
    if re.fullmatch(r"[\w-]+", feature):
        return _option(f"{key}.{feature}={value}")
    return _option(f"{key}={{{json.dumps(feature, ensure_ascii=False)}: {value}}}")


def exclude_option(feature: str) -> str:
    """Returns the option of the command that leaves a feature out."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", feature)
    return _option(f"data.exclude=[{feature if plain else json.dumps(feature, ensure_ascii=False)}]")


def _option(text: str) -> str:
    return f"--set {shlex.quote(text)}" if "'" in text else f"--set '{text}'"


def percent(share: float) -> str:
    """Returns a share as a person reads it."""
    return f"{share:.0%}" if share in (0, 1) or share >= 0.1 else f"{share:.2g}".rstrip(".") if share < 1e-4 else f"{share:.2%}"


def listed(values: Sequence[Any], most: int = 8) -> str:
    """Returns a list in words, cut short."""
    shown = ", ".join(str(v) for v in values[:most])
    return f"{shown}, ... ({len(values)} in all)" if len(values) > most else shown
