"""Reuse of the last run: when no input has changed since, its results are returned and no stage runs.

The check runs before any framework is imported. Inputs: the config; the contents of data, code, schema and serving sample; the
packages' versions; and, from outside the workspace, the registry's aliases and the last data that passed the data gate. Only the
last run is compared, not earlier ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from switchyard.components.data.summary import DatasetSummary
from switchyard.components.ingest.images import data_fingerprint, fingerprint_with_images, images_of_input
from switchyard.components.ingest.sources import find_files, fingerprint
from switchyard.components.process import warm
from switchyard.components.signing.signatures import check_signer
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.model_registry import CHAMPION, alias_version, aliases
from switchyard.components.tracking.references import name_and_selector
from switchyard.components.tracking.version_download import registered_digest
from switchyard.components.training.start import Origin
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.config.stage_settings import (
    VERSION,
    evaluation_settings,
    input_spec,
    preprocessing_code,
    tokenizer_code,
    trainer_settings,
    training_stages,
    warm_start_stage,
)
from switchyard.pipelines.runners.contract import RunResult, StageResult
from switchyard.pipelines.runners.outcome import run_result, track_result
from switchyard.pipelines.runners.tracking.record import versions
from switchyard.pipelines.runners.tracking.runs import RunTracker, tracking_uri
from switchyard.pipelines.runners.tracking.upload import send_stages
from switchyard.pipelines.terminal.progress import Display
from switchyard.pipelines.workspace import Workspace

_log = logging.getLogger(__name__)
_FINAL = ("blessed", "not_blessed")


@dataclass(frozen=True)
class LastRun:
    """Inputs and outputs of the last run in a workspace.

    Attributes:
        settings: digest of the config and everything it names, except the data.
        data: fingerprint of the input files.
        registry: alias -> version and its digest, after the run.
        gate: id of the MLflow run of the last data gate that passed, after the run.
        run_id: id of the parent MLflow run.
        trainer: names of all trainers.
        work: stage -> id of the MLflow run that produced its outputs.
        outputs: stage -> output key -> URI.
    """

    settings: str
    data: str
    registry: dict[str, str]
    gate: str | None
    run_id: str
    trainer: str
    work: dict[str, str]
    outputs: dict[str, dict[str, str]]


def settings_digest(config: PipelineConfig, workspace: Workspace) -> str:
    """Returns a digest of all inputs except the data; `config` needs `task` inferred."""
    sample = config.validation.serving_sample
    schema = config.validation.schema_path
    code, tokenizer = preprocessing_code(config, workspace.code), tokenizer_code(config, workspace.code)
    given = {
        "switchyard": VERSION,
        "versions": versions(),
        "config": config.model_dump(mode="json"),
        "uri": tracking_uri(config, workspace),
        # Snapshots of the user's code are named by a digest of their contents.
        "trainers": [trainer_settings(config, workspace.code, f).model_dump(mode="json") for f in config.trainer.frameworks],
        "preprocessing": asdict(code) if code else None,
        "tokenizer": asdict(tokenizer) if tokenizer else None,
        "evaluation": evaluation_settings(config, workspace.code).model_dump(mode="json"),
        "schema": fingerprint([schema]) if schema else None,
        "signer": check_signer(config.signing) if config.signing else None,
        "sample": _sample_fingerprint(config, sample) if sample else None,
    }
    # Keys in the order of the YAML: of splits and of hyperparameters to search, it makes a difference.
    text = workspace.neutral(json.dumps(given, default=str))
    return hashlib.sha256(text.encode()).hexdigest()


def _sample_fingerprint(config: PipelineConfig, sample: str) -> str:
    files = find_files([sample], "validation.serving_sample")
    return fingerprint_with_images(files, images_of_input(input_spec(config), files, "auto"))


def match(config: PipelineConfig, workspace: Workspace, settings: str) -> LastRun | None:
    """Returns the workspace's last run if its inputs are the same; else, or when MLflow is unreachable, None."""
    try:
        last = LastRun(**json.loads(workspace.last_run.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # no file, or one of an older version
        return None
    if last.settings != settings or not all(os.path.exists(uri) for keys in last.outputs.values() for uri in keys.values()):
        return None
    if last.data != data_fingerprint(input_spec(config)):
        return None
    try:
        outside = _outside(config, workspace)
        same = outside == (last.registry, last.gate) and _starts_as_before(config, workspace, last)
    except Exception as error:  # MLflow passes on the exceptions of its store backends
        _log.warning("MLflow: %s", error)
        return None
    return last if same else None


def invalidate(workspace: Workspace) -> None:
    """Deletes the record when a run starts, so that an aborted run leaves none."""
    workspace.last_run.unlink(missing_ok=True)


def save(
    config: PipelineConfig, workspace: Workspace, settings: str, trainer: str, result: RunResult, work: Mapping[str, str | None]
) -> None:
    """Writes the record for `match`, if the run reached a verdict and MLflow has its complete record."""
    known = {stage: run_id for stage in result.stages if (run_id := work.get(stage))}
    if result.status not in _FINAL or not result.mlflow_run_id or len(known) < len(result.stages):
        return
    if result.evaluation and result.evaluation.blessed and not result.blessed:
        return  # the champion was replaced during the run: the next run must compare with the new one
    try:
        registry, gate = _outside(config, workspace)
    except Exception as error:  # see match
        _log.warning("MLflow: %s", error)
        return
    outputs = {stage: dict(by_key) for stage, by_key in result.outputs.items()}
    data = DatasetSummary.load(outputs["ingest"]["examples"]).fingerprint
    last = LastRun(settings, data, registry, gate, result.mlflow_run_id, trainer, known, outputs)
    temporary = workspace.last_run.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(asdict(last), indent=1), encoding="utf-8")
    os.replace(temporary, workspace.last_run)


def replay(
    config: PipelineConfig, workspace: Workspace, last: LastRun, display: Display, run_key: str, source: Path | None
) -> RunResult:
    """Records a run with all stages cached and returns the last run's result for it.

    With warm processes the records of the stages, which take as long as all else, are sent by a fork of one that outlives this
    process.
    """
    tracker = RunTracker(config, workspace, run_key, last.trainer, source)
    later = tracker.stages_cached(last.work, later=warm.enabled())
    results = {}
    for stage in last.work:
        results[stage] = StageResult("cached", 0.0)
        display.status(stage, "cached", 0.0)
    result = run_result(config.name, last.trainer, tracker, last.work, results, last.outputs, [])
    result = replace(result, unchanged_since=last.run_id)
    report = Path(last.outputs.get("report", {}).get("report", "")) / "report.html"
    tracker.unchanged_since(last.run_id, result.metrics, report if report.is_file() else None)
    track_result(tracker, result, display, workspace)
    if later:
        _send_stages(workspace, workspace.logs / run_key / "stages.log")
    display.say("run", f"nothing has changed since MLflow run {last.run_id}; --even-if-unchanged runs it anyway")
    return result


def _send_stages(workspace: Workspace, log: Path) -> None:
    """Has a fork of a warm process send the stages' records, or sends them."""
    with open(os.devnull, "rb") as nothing, log.open("a", encoding="utf-8") as output:
        standard = (nothing.fileno(), output.fileno(), output.fileno())
        target = "switchyard.pipelines.runners.tracking.upload:send_stages_of"
        if forked := warm.fork(warm.STAGES, target, str(workspace.root), standard):
            forked.leave()
        else:
            send_stages(workspace, lambda line: print(line, file=output))


def _starts_as_before(config: PipelineConfig, workspace: Workspace, last: LastRun) -> bool:
    """Returns whether each training would start from the version that it started from in the last run."""
    client = tracking.client(tracking_uri(config, workspace))
    for framework, stage in zip(config.trainer.frameworks, training_stages(config), strict=True):
        if reference := config.trainer.start_for(framework):
            name, selector = name_and_selector(reference) or (config.model_name, CHAMPION)
            version = selector if selector.isdigit() else alias_version(client, name, selector)
            origin = Origin.load(last.outputs[warm_start_stage(stage)]["starting_point"])
            digest = registered_digest(client, name, version) if version else None
            if (version or "", digest or "") != (origin.version, origin.digest):
                return False
    return True


def _outside(config: PipelineConfig, workspace: Workspace) -> tuple[dict[str, str], str | None]:
    client = tracking.client(tracking_uri(config, workspace))
    experiment = client.get_experiment_by_name(config.experiment)
    gate = tracking.last_passed_gate(client, experiment.experiment_id, config.name) if experiment else None
    # A model that is deleted and registered again has the same numbers of versions.
    found = {a: f"{v} {registered_digest(client, config.model_name, v)}" for a, v in aliases(client, config.model_name).items()}
    return found, gate
