"""Defines the report stage, which renders one self-contained page from the artifacts of all other stages."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from switchyard.components.artifacts import DataVerdict, RunReport
from switchyard.components.bundle.model import bundle_path
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.data_gate.findings import Verdict
from switchyard.components.data_gate.page import DataPart
from switchyard.components.data_gate.statistics import read_statistics
from switchyard.components.ensemble.executor import WEIGHTS
from switchyard.components.evaluation.results import Evaluation
from switchyard.components.evaluation.servability import load, verdicts
from switchyard.components.report.page import ModelPart, run_report
from switchyard.components.tracking import run as tracking
from switchyard.components.training.executor import RESULT, TUNED

FILE = "report.html"


class Executor(base_executor.BaseExecutor):
    """The executor from the artifacts of a run to `report`."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """Writes the report and logs it to the pipeline's MLflow run."""
        uris = {k: artifact_utils.get_single_uri(v) for k, v in input_dict.items() if v and k not in ("model", "model_run")}
        summary = DatasetSummary.load(uris["examples"])
        statistics = {
            s: read_statistics(Path(uris["statistics"]) / f"Split-{s}" / "FeatureStats.pb")
            for s in summary.rows
            if summary.rows[s]
        }
        data = DataPart(summary, statistics, Verdict.load(uris["verdict"]))
        evaluation = verdicts(uris["evaluation"], uris.get("infra_blessing"))
        names = [m.get_string_custom_property("framework") for m in input_dict["model"]]
        results = {
            name: json.loads((Path(run.uri) / RESULT).read_text(encoding="utf-8"))
            for name, run in zip(names, input_dict["model_run"], strict=True)
        }
        config = exec_properties["config"]
        registration = json.loads((Path(uris["registration"]) / "registration.json").read_text(encoding="utf-8"))
        models = ModelPart(
            {name: result["history"] for name, result in results.items() if result["history"]},
            {name: result[TUNED] for name, result in results.items() if result.get(TUNED)},
            {name: result[WEIGHTS] for name, result in results.items() if WEIGHTS in result},
            evaluation,
            _lineage(
                uris, {n: m.uri for n, m in zip(names, input_dict["model"], strict=True)}, summary, evaluation, registration
            ),
            _reproduce(),
            config,
            load(uris["infra_blessing"]) if "infra_blessing" in uris else {},
            registration.get("outcome", ""),  # a run resumed by this version may have an older registration
            registration.get("next_step", ""),
        )
        page = run_report(exec_properties["pipeline_name"], data, models)
        target = Path(artifact_utils.get_single_uri(output_dict["report"]))
        target.mkdir(parents=True, exist_ok=True)
        (target / FILE).write_text(page, encoding="utf-8")
        tracking.current_run(parent=True).file(str(target / FILE), "report")


def _lineage(
    uris: Mapping[str, str],
    models: Mapping[str, str],
    summary: DatasetSummary,
    evaluation: Evaluation,
    registration: Mapping[str, Any],
) -> list[tuple[str, str, str]]:
    version = f"version {registration['version']}" if registration["version"] else "none"
    return [
        ("data", f"SHA-256 {summary.fingerprint[:16]}", ", ".join(summary.files[:3])),
        ("examples", f"{sum(summary.rows.values()):,} rows", uris["examples"]),
        ("schema", f"SHA-256 {_digest(Path(uris['schema']))}", uris["schema"]),
        ("transform graph", f"SHA-256 {_digest(Path(uris['transform_graph']) / 'transform_fn')}", uris["transform_graph"]),
        *((f"model {n}", f"SHA-256 {_digest(bundle_path(u) / 'artifacts')}", u) for n, u in models.items()),
        ("blessing", "BLESSED" if evaluation.blessed else "NOT_BLESSED", uris["blessing"]),
        ("registry", f"{registration['name']} {version}, {registration['status']}", registration["why"]),
    ]


def _digest(folder: Path) -> str:
    """Returns the first 16 hex digits of the SHA-256 of a folder's file names and contents."""
    total = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(str(file.relative_to(folder)).encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def _reproduce() -> str:
    run = tracking.current_run(parent=True).run_id
    lines = []
    if run:
        server = f"export MLFLOW_TRACKING_URI={shlex.quote(tracking.public_uri())}"
        lines += [server, f"mlflow artifacts download --run-id {run} --artifact-path config/pipeline.yaml --dst-path ."]
    lines += [
        "git checkout COMMIT   # tag mlflow.source.git.commit of the run",
        "switchyard run config/pipeline.yaml",
        f"# Python {sys.version.split()[0]}; versions of the libraries: config/versions.txt of the run",
    ]
    return "\n".join(lines)


class ReportSpec(types.ComponentSpec):
    """The component's interface; `config` is the resolved YAML without passwords, `pipeline_name` is for the title."""

    PARAMETERS = {"config": ExecutionParameter(type=str), "pipeline_name": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "verdict": ChannelParameter(type=DataVerdict),
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "registration": ChannelParameter(type=standard_artifacts.PushedModel),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing, optional=True),
    }
    OUTPUTS = {"report": ChannelParameter(type=RunReport)}


class Report(base_component.BaseComponent):
    """A stage that writes the report of a run and logs it to the pipeline's MLflow run.

    Outputs:
        report: `report.html`.
    """

    SPEC_CLASS = ReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, inputs: Mapping[str, types.BaseChannel], config: str, pipeline_name: str) -> None:
        super().__init__(ReportSpec(**inputs, config=config, pipeline_name=pipeline_name, report=types.Channel(RunReport)))
