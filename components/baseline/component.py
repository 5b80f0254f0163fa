"""The baseline stage. It looks outside of the workspace and asks MLflow alone, no ML Metadata: run it uncached."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from components import tracking
from components.artifacts import Baseline as BaselineArtifact
from components.baseline.contents import BaselineContents, champion_folder, misfits, previous_statistics
from components.dataset import DatasetSummary
from components.errors import UserError, first_line
from components.model_bundle import bundle_info
from components.model_registry import CHAMPION, DIGEST, MODEL_URI, alias_version, download_version
from components.progress import say, warn

_log = logging.getLogger(__name__)

STATISTICS_FOLDER = "statistics"


class Executor(base_executor.BaseExecutor):
    """`examples` in, `baseline` out."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class. MLflow being away is said, and is no error; a champion whose files were changed is one."""
        summary = DatasetSummary.load(artifact_utils.get_single_uri(input_dict["examples"]))
        uri = artifact_utils.get_single_uri(output_dict["baseline"])
        os.makedirs(uri, exist_ok=True)
        name = exec_properties["model_name"]
        try:
            contents = _find(name, exec_properties["pipeline_name"], summary, uri)
        except UserError:
            shutil.rmtree(champion_folder(uri), ignore_errors=True)
            raise
        except Exception as error:  # MLflow raises what its many stores raise
            shutil.rmtree(champion_folder(uri), ignore_errors=True)
            _log.exception("MLflow")
            reason = first_line(error)
            contents = BaselineContents(None, "", "", [], None, f"the champion could not be asked for: {reason}")
            refused = tracking.is_refusal(error) or tracking.is_denial(error)
            why = f"refuses to name the champion ({reason})" if refused else "cannot be reached"
            warn(f"the registry {why}: the model is not compared with the champion, and will not replace one")
        contents.save(uri)
        tracking.ambient().tags({"champion": contents.version or "none", "champion.note": contents.note})
        if contents.misfits:
            warn(f"champion version {contents.version} does not fit this data: {'; '.join(contents.misfits[:5])}")
        say(contents.note)


def _find(name: str, pipeline: str, summary: DatasetSummary, uri: str) -> BaselineContents:
    server = os.environ.get("MLFLOW_TRACKING_URI")
    if not server:
        return BaselineContents(None, "", "", [], None, "no tracking server: nothing to compare with")
    client = tracking.client(server)
    version = alias_version(client, name, CHAMPION)
    experiment = os.environ.get("MLFLOW_EXPERIMENT_ID")
    previous = _previous(client, experiment, pipeline, list(summary.rows), uri) if experiment else None
    if version is None:
        return BaselineContents(None, "", "", [], previous, f"{name} has no champion yet")
    registered = client.get_model_version(name, version)
    digest = registered.tags.get(DIGEST)
    if digest is None:
        note = f"champion is version {version}, which Switchyard did not make, or an older version did"
        return BaselineContents(version, "", "", ["it was registered without a digest"], previous, note)
    download_version(client, server, name, version, champion_folder(uri))
    info = bundle_info(champion_folder(uri))
    note = f"champion is version {version} ({info.framework})"
    source = registered.tags.get(MODEL_URI, "")
    return BaselineContents(version, info.framework, source, misfits(info, summary), previous, note, digest)


def _previous(client: Any, experiment: str, pipeline: str, splits: list[str], uri: str) -> str | None:
    """Copies the statistics of the last data that the gate let pass; returns the gate's MLflow run."""
    run_id = tracking.last_passed_gate(client, experiment, pipeline)
    if run_id is None:
        return None
    present = {Path(f.path).stem for f in client.list_artifacts(run_id, STATISTICS_FOLDER)}
    for split in splits:
        if split in present:
            target = previous_statistics(uri, split)
            target.parent.mkdir(exist_ok=True)
            fetched = client.download_artifacts(run_id, f"{STATISTICS_FOLDER}/{split}.pb", str(target.parent))
            shutil.move(fetched, target)
    return run_id


class BaselineSpec(types.ComponentSpec):
    """`model_name`: name in the registry; `pipeline_name`: whose previous run."""

    PARAMETERS = {"model_name": ExecutionParameter(type=str), "pipeline_name": ExecutionParameter(type=str)}
    INPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}
    OUTPUTS = {"baseline": ChannelParameter(type=BaselineArtifact)}


class Baseline(base_component.BaseComponent):
    """Fetches the champion's bundle and the previous run's statistics from MLflow, and checks that the champion fits.

    Outputs:
        baseline: see `BaselineContents`.
    """

    SPEC_CLASS = BaselineSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, examples: types.BaseChannel, model_name: str, pipeline_name: str) -> None:
        super().__init__(
            BaselineSpec(
                model_name=model_name,
                pipeline_name=pipeline_name,
                examples=examples,
                baseline=types.Channel(BaselineArtifact),
            )
        )
