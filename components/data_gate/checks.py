"""The data gate's checks on statistics already in memory; reads no files and no artifacts."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from switchyard.components.data_gate.anomalies import UNEXPECTED_VALUES, presence_findings, schema_findings
from switchyard.components.data_gate.config import DataGateSettings
from switchyard.components.data_gate.drift import column_findings, distance_findings, distances, schemas_bounds
from switchyard.components.data_gate.findings import DRIFT, GROWS, SKEW, SPLITS, WARNING, Distance, Finding, exclude_option
from switchyard.components.data_gate.growth import growth_findings
from switchyard.components.data_gate.sample_weights import weight_findings
from switchyard.components.data_gate.statistics import Statistics, features_of

CHAMPIONS, PREVIOUS = "train, against the champion's training data", "train, against the previous run"


@dataclass(frozen=True)
class Checks:
    """Inputs of the checks: the data to check and the data to compare it with.

    Attributes:
        split -> its statistics, `train` first.
        schema: the reviewed or inferred schema.
        split -> TFDV's anomalies against the schema.
        labels: the label columns.
        weight: name of the column of the sample weights, or empty.
        uncompared: columns that may be in the current or in the champion's data alone, see `uncompared_columns`.
        ordered: columns by which the rows are sorted, see `growth.ordered`.
        settings: the data gate's settings.
        independent: share of independent rows: with a split key, rows of one key count as one.
        champions: statistics of the champion's training split; None without a champion to compare with.
        distances_of_champion: False when the champion was trained on the same files.
        known: columns of the data and of the champion's data, including those without values in a split.
        previous: statistics of the previous run's training split.
        served: statistics of a sample of serving requests.
    """

    statistics: Mapping[str, Statistics]
    schema: schema_pb2.Schema
    anomalies: Mapping[str, anomalies_pb2.Anomalies]
    labels: set[str]
    ordered: Mapping[str, float]
    settings: DataGateSettings
    independent: float = 1.0
    champions: Statistics | None = None
    distances_of_champion: bool = True
    known: tuple[Collection[str], Collection[str]] = field(default=((), ()))
    previous: Statistics | None = None
    served: Statistics | None = None
    weight: str = ""
    uncompared: set[str] = field(default_factory=set)

    def findings(self) -> tuple[list[Finding], list[Distance]]:
        """Returns the findings of every check, unmerged, and all distances."""
        train = self.statistics["train"]
        found = [f for split in self.statistics for f in self._schemas(split)]
        if self.champions:
            found += column_findings(train, self.champions, "train", self.settings, self.uncompared, self.known)
        found += self._skewed_columns()
        measured = self._distances()
        for check in (DRIFT, SKEW, SPLITS):
            bounds = schemas_bounds(self.schema, check)
            found += distance_findings([d for d in measured if d.check == check], self.settings.drift, bounds)
        of_features = {name: feature for name, feature in features_of(train).items() if name != self.weight}
        found += growth_findings(of_features, self.ordered, self.labels)
        if self.weight:
            found += [f for split in self.statistics for f in weight_findings(self.statistics[split], split, self.weight)]
        return _with_growth(found, measured), measured

    def _schemas(self, split: str) -> list[Finding]:
        statistics = self.statistics[split]
        train = self.statistics["train"] if split != "train" else None
        found = schema_findings(self.anomalies[split], self.schema, statistics, split, self.settings, train)
        # Splits that ingest makes from one input differ by chance alone.
        if train and self.settings.split_paths and not self.settings.curated:
            found += presence_findings(statistics, train, split, self.settings)
        return found

    def _skewed_columns(self) -> list[Finding]:
        if not self.served:
            return []
        columns = column_findings(self.served, self.statistics["train"], _SERVED, self.settings, {*self.labels, self.weight})
        return [
            dataclasses.replace(f, check=SKEW, expected=f.expected.replace("the champion's training data", "training"))
            for f in columns
            if f.anomaly != "new column"
        ]

    def _distances(self) -> list[Distance]:
        train, in_order = self.statistics["train"], self.ordered.keys() - self.labels
        pairs: list[tuple[Statistics, Statistics | None, str, str, set[str]]] = [
            (train, self.champions if self.distances_of_champion else None, DRIFT, CHAMPIONS, set()),
            (train, self.previous, DRIFT, PREVIOUS, set()),
        ]
        if self.settings.split_paths:
            others = {s: found for s, found in self.statistics.items() if s != "train"}
            pairs += [(found, train, SPLITS, f"{split}, against train", set()) for split, found in others.items()]
        if self.served:
            pairs.append((self.served, train, SKEW, _SERVED, {*self.labels, self.weight}))
        return [
            distance
            for now, before, check, where, ignored in pairs
            if before
            for distance in distances(now, before, check, where, ignored, in_order, self.independent)
        ]


_SERVED = "serving sample, against train"


def _with_growth(findings: Sequence[Finding], measured: Sequence[Distance]) -> list[Finding]:
    """Returns the findings, with one per grown column in place of its findings on values that training lacks."""
    grown = {d.feature: d for d in reversed(measured) if d.reason == GROWS}
    kept = [f for f in findings if f.feature not in grown or f.anomaly != UNEXPECTED_VALUES or f.action == "fail"]
    reported = {f.feature for f in kept if f.anomaly == GROWS}
    return kept + [
        Finding(d.check, d.where, name, GROWS, d.before, d.now, None, WARNING, "warn", exclude_option(name))
        for name, d in sorted(grown.items())
        if name not in reported
    ]
