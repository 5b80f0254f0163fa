"""The baseline stage. It reads MLflow, which is outside the workspace, and no ML Metadata, so it must run uncached."""

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

from switchyard.components.artifacts import Baseline as BaselineArtifact
from switchyard.components.baseline.contents import BaselineContents, Misfit, champion_folder, previous_statistics
from switchyard.components.baseline.fit import ChampionFit, Reasons
from switchyard.components.bundle.model import bundle_info
from switchyard.components.data import source as data_source
from switchyard.components.data.summary import DatasetSummary, split_files
from switchyard.components.errors import UserError, first_line
from switchyard.components.process.full_disk import full_disk
from switchyard.components.progress import say, warn
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.context import RunContext
from switchyard.components.tracking.mlflow_errors import is_denial, is_refusal
from switchyard.components.tracking.model_registry import CHAMPION, DATA, DIGEST, MODEL_URI, alias_version, check_own
from switchyard.components.tracking.version_download import download_version

_log = logging.getLogger(__name__)

STATISTICS_FOLDER = "statistics"
_BATCH = 1000


class Executor(base_executor.BaseExecutor):
    """The baseline executor: reads `examples`, writes `baseline`."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 (TFX's name)
        """See the base class. An unreachable MLflow is a warning; a champion with modified files, or a full disk, is an error."""
        examples = artifact_utils.get_single_uri(input_dict["examples"])
        uri = artifact_utils.get_single_uri(output_dict["baseline"])
        os.makedirs(uri, exist_ok=True)
        name = exec_properties["model_name"]
        try:
            contents = _find(name, exec_properties["pipeline_name"], examples, uri)
        except UserError:
            shutil.rmtree(champion_folder(uri), ignore_errors=True)
            raise
        except Exception as error:  # MLflow does not wrap the errors of its many stores
            shutil.rmtree(champion_folder(uri), ignore_errors=True)
            if full_disk(error):
                raise
            _log.exception("MLflow")
            reason = first_line(error)
            contents = BaselineContents(None, "", "", None, f"the registry is unreachable, so the champion is unknown: {reason}")
            refused = is_refusal(error) or is_denial(error)
            why = f"denies access to the champion ({reason})" if refused else "is unreachable"
            warn(f"the registry {why}: the model is not compared with the champion and will not replace it")
        contents.save(uri)
        if contents.trained_on:
            warn(f"{contents.origin}; they are compared anyway. Set serving.model_name to register a separate model")
        tracking.current_run().tags({"champion": contents.version or "none", "champion.note": contents.note})
        say(contents.note)


def _find(name: str, pipeline: str, examples: str, uri: str) -> BaselineContents:
    summary = DatasetSummary.load(examples)
    context = RunContext.current()
    server, experiment = context.tracking_uri, context.experiment_id
    if not server:
        return BaselineContents(None, "", "", None, "no tracking server: nothing to compare with")
    client = tracking.client(server)
    check_own(client, name)
    version = alias_version(client, name, CHAMPION)
    previous = _previous(client, experiment, pipeline, list(summary.rows), uri) if experiment else None
    if version is None:
        return BaselineContents(None, "", "", previous, f"{name} has no champion yet", name=name)
    registered = client.get_model_version(name, version)
    digest, source = registered.tags.get(DIGEST), registered.tags.get(MODEL_URI, "")
    rows = summary.rows[summary.held_out]
    same = registered.tags.get(DATA) == summary.fingerprint
    trained_on = "" if same else data_source.another(registered.tags, summary.source)
    if digest is None:
        obstacle = "it was registered without a digest, by an older Switchyard, so its files cannot be verified"
        note = f"champion is version {version}, made by an older Switchyard"
        return BaselineContents(version, "", source, previous, note, None, name, obstacle, rows, trained_on=trained_on)
    download_version(client, server, name, version, champion_folder(uri))
    try:
        info = bundle_info(champion_folder(uri))
    except UserError as error:  # intact, and of another version
        shutil.rmtree(champion_folder(uri))
        note = f"champion is version {version}, which this version cannot read"
        return BaselineContents(
            version, "", source, previous, note, None, name, str(error).rstrip("."), rows, trained_on=trained_on
        )
    champion = ChampionFit(info, summary)
    obstacle = champion.obstacle
    judged, reasons = (0, Reasons()) if obstacle else _count(champion, split_files(examples, summary.held_out))
    misfits = [Misfit(column, why, n) for (column, why), n in reasons.most_common()]
    note = f"champion is version {version} ({info.framework}), it can predict {judged:,} of {rows:,} rows of {summary.held_out}"
    if info.positive_class is not None and str(info.positive_class) != str(summary.positive_class):
        note = f"{note}; its positive class is {info.positive_class}, so its probabilities are inverted"
    return BaselineContents(
        version, info.framework, source, previous, f"{note}: {obstacle}" if obstacle else note, digest, name, obstacle, rows,
        judged, misfits, trained_on,
    )  # fmt: skip


def _count(champion: ChampionFit, files: list[str]) -> tuple[int, Reasons]:
    """Returns the number of rows that a champion can judge, and the reasons for the others."""
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    decoder, judged, reasons = ExamplesToRecordBatchDecoder(), 0, Reasons()
    for records in tf.data.TFRecordDataset(files).batch(_BATCH).as_numpy_iterator():
        taken = champion.take(decoder.DecodeBatch(list(records)))
        judged += int(taken.mask.sum())
        reasons += taken.reasons
    return judged, reasons


def _previous(client: Any, experiment: str, pipeline: str, splits: list[str], uri: str) -> str | None:
    """Downloads the statistics of the last data that passed the data gate; returns that gate's MLflow run."""
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
    """The component's interface. `model_name`: name in the registry; `pipeline_name`: pipeline of the previous run."""

    PARAMETERS = {"model_name": ExecutionParameter(type=str), "pipeline_name": ExecutionParameter(type=str)}
    INPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}
    OUTPUTS = {"baseline": ChannelParameter(type=BaselineArtifact)}


class Baseline(base_component.BaseComponent):
    """A component that fetches the champion and the previous run's statistics from MLflow, and counts the rows it can judge.

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
