"""Runs all checks of the data gate, tracks the verdict, and raises when it stops the run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from switchyard.components.baseline.component import STATISTICS_FOLDER
from switchyard.components.baseline.contents import BaselineContents, champion_folder, previous_statistics
from switchyard.components.bundle.model import training_data
from switchyard.components.data.schema import environment_of
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate.checks import Checks
from switchyard.components.data_gate.comparability import uncompared_columns, with_comparability
from switchyard.components.data_gate.config import DataGateSettings
from switchyard.components.data_gate.findings import FILE, Verdict, merged
from switchyard.components.data_gate.growth import ordered
from switchyard.components.data_gate.leakage import leakage_findings, sample_rows
from switchyard.components.data_gate.page import DataPart, data_report
from switchyard.components.data_gate.serving_sample import sample_statistics
from switchyard.components.data_gate.statistics import Statistics, features_of, read_statistics
from switchyard.components.errors import DataGateError, UserError, did_you_mean
from switchyard.components.pages.artifacts import track_data
from switchyard.components.progress import say, warn
from switchyard.components.text.markdown import plain
from switchyard.components.tracking import run as tracking

_MOST_WARNINGS = 15


class Executor(base_executor.BaseExecutor):
    """TFX executor from `examples`, `statistics`, `schema`, `anomalies` and `baseline` to `verdict`."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class.

        Raises:
            DataGateError: a finding stops the run.
            UserError: the settings name an environment that does not exist.
        """
        settings = DataGateSettings.model_validate_json(exec_properties["settings"])
        uris = {key: artifact_utils.get_single_uri(artifacts) for key, artifacts in input_dict.items()}
        gate = Gate(uris, settings)
        verdict = gate.judge()
        verdict.save(artifact_utils.get_single_uri(output_dict["verdict"]))
        _track(verdict, gate)
        for finding in [f for f in verdict.findings if f.action == "warn"][:_MOST_WARNINGS]:
            warn(finding.sentence())
        if not verdict.passed:
            raise DataGateError(verdict.message())
        say(f"passed, {len(verdict.findings)} warnings")


class Gate:
    """Checks on one set of examples."""

    def __init__(self, uris: Mapping[str, str], settings: DataGateSettings) -> None:
        self._uris, self._settings = uris, settings
        self.summary = DatasetSummary.load(uris["examples"])
        splits = sorted((s for s, rows in self.summary.rows.items() if rows), key=lambda s: s != "train")
        self.statistics = {s: read_statistics(self.statistics_file(s)) for s in splits}
        self._schema = tfdv.load_schema_text(str(Path(uris["schema"]) / "schema.pbtxt"))
        self.baseline = BaselineContents.load(uris["baseline"])
        self._check_settings()

    def statistics_file(self, split: str) -> Path:
        """Returns the path of a split's statistics, as TFX lays them out."""
        return Path(self._uris["statistics"]) / f"Split-{split}" / "FeatureStats.pb"

    def judge(self) -> Verdict:
        """Runs all checks and returns the verdict."""
        summary, notes = self.summary, [n for n in (self.baseline.note, self.baseline.origin) if n]
        folder = champion_folder(self._uris["baseline"])
        champion = training_data(folder) if folder.is_dir() else folder
        previous = previous_statistics(self._uris["baseline"], "train")
        champions = DatasetSummary.load(str(champion)) if (champion / "statistics.pb").exists() else None
        same_files = champions is not None and champions.fingerprint == summary.fingerprint
        if same_files:
            notes.append("drift against the champion's training data: it was trained on the same files")
        elif champions is None:
            notes.append("drift against the champion's training data: there is no champion")
        if not previous.exists():
            notes.append("drift against the previous run: there is none")
        sample, rows = self._settings.serving_sample, sample_rows(self._uris["examples"], summary)
        checks = Checks(
            statistics=self.statistics,
            schema=self._schema,
            anomalies={split: self._anomalies(split, found) for split, found in self.statistics.items()},
            labels=set(summary.labels),
            weight=summary.sample_weight,
            uncompared=uncompared_columns(champions, summary) if champions else set(),
            ordered=ordered(rows),
            settings=self._settings,
            independent=summary.independent,
            champions=read_statistics(champion / "statistics.pb") if champions else None,
            distances_of_champion=not same_files,
            known=(_columns(summary), _columns(champions) if champions else set()),
            previous=read_statistics(previous) if previous.exists() else None,
            served=sample_statistics([sample], summary, self._settings.missing_values) if sample else None,
        )
        findings, measured = checks.findings()
        findings += leakage_findings(self._uris["examples"], summary, self._settings, rows)
        findings = with_comparability(findings, self.baseline, summary, self._settings)
        # Other queries than before are no drift, and no feature that could leak.
        findings = [f for f in findings if f.feature != summary.group or not summary.group]
        return Verdict(merged(findings), [d for d in measured if d.feature != summary.group], notes)

    def _anomalies(self, split: str, statistics: Statistics) -> anomalies_pb2.Anomalies:
        chosen = environment_of(self._schema, self._settings.environment)
        if chosen:
            # TFX's ExampleValidator does not support environments.
            return tfdv.validate_statistics(statistics, self._schema, environment=chosen)
        path = Path(self._uris["anomalies"]) / f"Split-{split}" / "SchemaDiff.pb"
        return anomalies_pb2.Anomalies.FromString(path.read_bytes())

    def _check_settings(self) -> None:
        known = set(features_of(self.statistics["train"])) | {f.name for f in self._schema.feature} | set(self._settings.excluded)
        for key, names in (
            ("on_anomaly.features", self._settings.on_anomaly.features),
            ("drift.features", self._settings.drift.features),
        ):
            for name in names:
                if name not in known:
                    # Only a warning: naming a missing column is how its loss is accepted.
                    warn(f"validation.{key}: unknown column {name!r}.{did_you_mean(name, known)}")
        environment = self._settings.environment
        environments = list(self._schema.default_environment)
        if environment and environment not in environments:
            raise UserError(
                f"validation.environment: the schema has no environment {environment!r}."
                f"{did_you_mean(environment, environments)} Allowed: {', '.join(environments) or 'none'}."
            )


def _columns(summary: DatasetSummary) -> set[str]:
    return {*summary.columns, *summary.empty_columns}


def _track(verdict: Verdict, gate: Gate) -> None:
    run, parent = tracking.current_run(), tracking.current_run(parent=True)
    outcome = "passed" if verdict.passed else "failed"
    run.tags({tracking.GATE_TAG: outcome})
    parent.tags({"data_gate": outcome})
    counts = {
        "data_gate_failures": float(len(verdict.failures)),
        "data_gate_warnings": float(len(verdict.findings) - len(verdict.failures)),
    }
    largest: dict[str, float] = {}
    for distance in verdict.distances:
        if distance.judged:
            largest[distance.check] = max(largest.get(distance.check, 0.0), distance.largest)
    run.metrics({**counts, **{f"largest_{check}": value for check, value in largest.items()}})
    run.text(json.dumps(dataclasses.asdict(verdict), indent=1), f"data_gate/{FILE}")
    page = data_report(DataPart(gate.summary, gate.statistics, verdict))
    run.text(page, "data_gate/data_gate.html")
    if not verdict.passed:
        # No later stage writes the run's report.
        parent.text(page, "report/report.html")
        track_data(parent, gate.summary)
        findings = "".join(f"* {plain(f.sentence())}\n" for f in verdict.failures)
        parent.tags({"mlflow.note.content": f"**The data gate stopped the run.**\n\n{findings}"})
        return
    for split in gate.statistics:
        run.file_as(str(gate.statistics_file(split)), f"{STATISTICS_FOLDER}/{split}.pb")
