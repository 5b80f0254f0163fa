"""Compiles a checked config for a cluster, for `switchyard compile` and `submit`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from switchyard.components.errors import ArgumentError, DataGateError, UserError, first_line
from switchyard.components.import_order import import_torch_first
from switchyard.components.ingest.sources import is_local
from switchyard.components.text.addresses import is_loopback
from switchyard.components.text.redaction import TRACKING_URI, holds_credentials, mask
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.api.output_path import check_output
from switchyard.pipelines.api.pipeline_argument import load
from switchyard.pipelines.config.kubeflow import StageResources
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.config.stage_settings import code_paths, code_texts
from switchyard.pipelines.preflight import check_code, check_code_loads, check_inputs, check_task
from switchyard.pipelines.runners.champion_class import champions_class
from switchyard.pipelines.runners.kubeflow.carried_files import packed
from switchyard.pipelines.runners.kubeflow.compiler.compile import CompiledForKubeflow, with_environment
from switchyard.pipelines.runners.kubeflow.compiler.workflow_size import LIMIT, SMALL, workflow_size
from switchyard.pipelines.runners.kubeflow.extra import require_kfp
from switchyard.pipelines.runners.kubeflow.local_inputs import remote_bytes
from switchyard.pipelines.runners.kubeflow.uploaded_files import FileStore
from switchyard.pipelines.runners.tracking.record import RunRecord, run_record
from switchyard.pipelines.terminal.output import progress_console, quiet
from switchyard.pipelines.terminal.progress import make_display
from switchyard.pipelines.workspace import Workspace

_ROOT = "/tmp/switchyard"  # noqa: S108 (required by TFX; tasks do not use it)


def compile(  # noqa: A001 (the command's name)
    pipeline: str | os.PathLike[str] | Mapping[str, Any] | PipelineConfig,
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    trainer: str | Sequence[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    workspace: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> CompiledForKubeflow:
    """Compiles a pipeline for Kubeflow Pipelines v2; starts nothing and needs no cluster.

    Args:
        pipeline: path of its YAML, its content as a mapping, or what `load_config` returned.
        overrides: key -> value, or texts `KEY=VALUE`, see `run`.
        trainer: sets `trainer.framework`, see `run`.
        output: file to write the YAML to, for KFP's UI, API and SDK; default: none.
        source: file to write the generated Python source to; default: none.
        workspace: folder for the log and snapshots of the user's code; default: `.switchyard` beside the YAML.
        progress: show progress on standard error. Without it, warnings are Python's (`UserWarning`).

    Returns:
        The compiled pipeline: `to_yaml()`, `source`, `spec`.

    Raises:
        UserError: config, data or code are invalid, a file cannot be written, or something cannot run on Kubeflow.
        DataGateError: the label has values that the reviewed schema lacks.
    """
    config, yaml, place = load(pipeline, overrides, trainer, workspace)
    files = {option: Path(path) for option, path in (("output", output), ("source", source)) if path is not None}
    for option, path in files.items():
        if yaml and path.resolve() == yaml:
            raise ArgumentError(option, f"{path}: is the pipeline's own YAML; choose another output file")
        check_output(path, option)
    compiled, _, _ = compile_for_cluster(config, yaml, place, progress=progress)
    texts = {"output": compiled.to_yaml, "source": lambda: compiled.source}
    for option, path in files.items():
        path.write_text(texts[option](), encoding="utf-8")
    return compiled


def compile_for_cluster(
    config: PipelineConfig, source: Path | None, place: Workspace, *, progress: bool, upload: bool = False, once: bool = False
) -> tuple[CompiledForKubeflow, PipelineConfig, RunRecord]:
    """Returns the compiled pipeline, its config with `task` inferred, and the record of its parent MLflow run.

    `upload`: upload large local files to MLflow where `tracking.uri` names a server; otherwise the pipeline contains them.
    `once`: the pipeline runs once, now, on data as it is: what the cluster would look up about it is looked up here if possible.
    """
    require_kfp()
    made, log = place.create(), place.logs / "compile.log"
    try:
        with progress_console(progress) as console:
            return _compiled(config, source, place, log, console, upload=upload, once=once)
    except (UserError, DataGateError):
        place.forget(log, made)
        raise


def _compiled(
    config: PipelineConfig, source: Path | None, place: Workspace, log: Path, console: Console, *, upload: bool, once: bool
) -> tuple[CompiledForKubeflow, PipelineConfig, RunRecord]:
    server = _tracking_server(config, submitting=upload)
    with quiet(log):
        display = make_display(console)
        config = _checked(config, place, partial(display.say, "check"))
        console.print("compiling", highlight=False)
        if code_paths(config):
            import_torch_first()  # the user's code may import one framework, TFX imports the other
            check_code_loads(config, place.code, data=_is_readable(config))
        from switchyard.pipelines.runners.kubeflow.compiler.from_config import compile_config

        record = run_record(config, ", ".join(config.trainer.candidates), source)
        uploads = FileStore(server, config.experiment, partial(display.say, "MLflow")) if upload and server else None
        found = _remote_bytes(config, partial(display.say, "ingest")) if once else None
        compiled = compile_config(config, place.code, _ROOT, {}, carry_data=True, uploads=uploads, remote_bytes=found)
    # A secret's variable and a variable in the pipeline would both be set.
    named = "" if TRACKING_URI in config.kubeflow.defaults.secrets else server
    every = RunContext(tracking_uri=named, record=record.short_json())
    complete, readers = RunContext(record=packed(record.to_json())), RunContext(files=uploads.location if uploads else "")
    compiled = with_environment(compiled, every.variables(), first=complete.variables(), readers=readers.variables())
    size = workflow_size(compiled.spec, compiled.platform)
    size.check()
    if upload and not server and size.total > SMALL:
        display.say(
            "submit",
            f"warning: the Workflow will have about {size.total / 1000:,.0f} kB of at most {LIMIT / 1000:,.0f}, with the "
            "pipeline's files in it; where tracking.uri names an MLflow server (http://...), they are uploaded there instead",
        )
    # The pipeline has the user's code already, and is of limited size; MLflow's run gets it from here.
    return compiled, config, replace(record, texts=record.texts | code_texts(config))


def _checked(config: PipelineConfig, place: Workspace, say: Callable[[str], None]) -> PipelineConfig:
    store = place.code
    # Without an address this machine cannot look up the champion in the cluster's registry.
    champions = champions_class(config, place, say) if config.tracking.uri else lambda: None
    if _is_readable(config):
        return check_inputs(config, store, champions)
    # The cluster may read data that this machine cannot; the pipeline's shape depends only on the task.
    if config.task == "auto":
        try:
            return check_inputs(config, store, champions)
        except UserError as error:
            raise UserError(f"{error} Or set task; the data is then not read on this machine.") from None
    check_code(config, store)
    check_task(config, config.task)
    return config


def _is_readable(config: PipelineConfig) -> bool:
    """Returns whether all data is on this machine."""
    patterns = [*config.data.path, *(p for paths in (config.data.split_paths or {}).values() for p in paths)]
    mounted = tuple(v.path for s in (config.kubeflow.defaults, *config.kubeflow.stages.values()) for v in s.volumes)
    return all(is_local(p) and not p.startswith(mounted or ("\0",)) for p in patterns)


def _remote_bytes(config: PipelineConfig, say: Callable[[str], None]) -> int | None:
    try:
        return remote_bytes(config)
    except UserError as error:
        say(f"the data is looked up by a task of its own on the cluster, since this machine cannot: {first_line(error)}")
        return None


def _tracking_server(config: PipelineConfig, *, submitting: bool) -> str:
    uri = config.tracking.uri
    if not uri or not uri.startswith("http"):
        return ""
    if submitting and is_loopback(uri) and not _names_server(config.kubeflow.defaults):
        raise UserError(
            f"tracking.uri: {mask(uri)} is an address of this machine, and in a pod it would be the pod's own; set "
            f"kubeflow.defaults.environment.{TRACKING_URI} to MLflow's address as the tasks see it."
        )
    if urlsplit(uri).username is not None or holds_credentials(uri):
        raise UserError(
            "tracking.uri: contains a password, which would be stored in the cluster's database; remove it and set "
            "kubeflow.defaults.secrets: {MLFLOW_TRACKING_USERNAME: NAME/KEY, MLFLOW_TRACKING_PASSWORD: NAME/KEY}."
        )
    return uri


def _names_server(resources: StageResources) -> bool:
    return TRACKING_URI in resources.environment or TRACKING_URI in resources.secrets
