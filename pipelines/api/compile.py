"""`switchyard compile`, and what `submit` shares with it: config in, checked, compiled for a cluster out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from switchyard.components.errors import DataGateError, UserError
from switchyard.components.import_order import import_torch_first
from switchyard.components.ingest.sources import is_local
from switchyard.components.tracking.context import RunContext
from switchyard.components.training.config import trainer_name
from switchyard.pipelines.api.output_path import check_output
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.preflight import check_code, check_code_loads, check_inputs
from switchyard.pipelines.runners.champion_class import champions_class
from switchyard.pipelines.runners.kubeflow.compiler.compile import CompiledForKubeflow, with_environment
from switchyard.pipelines.runners.kubeflow.compiler.workflow_size import workflow_size
from switchyard.pipelines.runners.tracking.record import RunRecord, run_record
from switchyard.pipelines.terminal.output import quiet, stderr_console
from switchyard.pipelines.workspace import Workspace, default_workspace

_ROOT = "/tmp/switchyard"  # noqa: S108 (TFX wants one; tasks do not look at it)


def write_compiled(
    pipeline: Path, overrides: Sequence[str], workspace: Path | None, output: Path | None, source: Path | None
) -> Path:
    """Compiles a pipeline to a file and returns its path.

    Raises:
        UserError: something is wrong with config, data or code, or cannot run on Kubeflow.
    """
    target = output or pipeline.with_name(f"{pipeline.stem}.kfp.yaml")
    if target.resolve() == pipeline.resolve():
        raise UserError(f"--output {target}: is the pipeline itself; give another file")
    for path, option in ((target, "--output"), (source, "--source")):
        if path is not None:
            check_output(path, option)
    compiled, _, _ = compile_for_cluster(pipeline, overrides, workspace)
    target.write_text(compiled.to_yaml(), encoding="utf-8")
    if source:
        source.write_text(compiled.source, encoding="utf-8")
    return target


def compile_for_cluster(
    pipeline: Path, overrides: Sequence[str], workspace: Path | None
) -> tuple[CompiledForKubeflow, PipelineConfig, RunRecord]:
    """Returns the compiled pipeline, its config with `task` decided, and what its parent MLflow run holds."""
    config = load_config(pipeline, overrides=overrides)
    place = Workspace((workspace or default_workspace(pipeline)).resolve())
    place.contain_libraries()
    made, log = place.create(), place.logs / "compile.log"
    try:
        return _compiled(pipeline, config, place, log)
    except (UserError, DataGateError):
        place.forget(log, made)
        raise


def _compiled(
    pipeline: Path, config: PipelineConfig, place: Workspace, log: Path
) -> tuple[CompiledForKubeflow, PipelineConfig, RunRecord]:
    console = stderr_console()
    with quiet(log):
        config = _checked(config, place, lambda text: console.print(text, highlight=False, markup=False))
        console.print("compiling", highlight=False)
        if config.preprocessing or config.trainer.model:
            import_torch_first()  # the user's code imports a framework, and TFX the other one
            check_code_loads(config, place.code)
        from switchyard.pipelines.runners.kubeflow.compiler.from_config import compile_config

        record = run_record(config, ", ".join(trainer_name(f) for f in config.trainer.frameworks), pipeline.resolve())
        compiled = compile_config(config, place.code, _ROOT, {}, carry_data=True)
    every = RunContext(tracking_uri=_tracking_server(config), record=record.short_json())
    compiled = with_environment(compiled, every.variables(), first=RunContext(record=record.to_json()).variables())
    workflow_size(compiled.spec, compiled.platform).check()
    return compiled, config, record


def _checked(config: PipelineConfig, place: Workspace, say: Callable[[str], None]) -> PipelineConfig:
    store = place.code
    # Without an address this machine does not know the cluster's registry.
    champions = champions_class(config, place, say) if config.tracking.uri else lambda: None
    patterns = [*config.data.path, *(p for paths in (config.data.split_paths or {}).values() for p in paths)]
    mounted = tuple(v.path for s in (config.kubeflow.defaults, *config.kubeflow.stages.values()) for v in s.volumes)
    here = [p for p in patterns if is_local(p) and not p.startswith(mounted or ("\0",))]
    if len(here) == len(patterns):
        return check_inputs(config, store, champions)
    # The cluster may read what this machine may not: the task is all that the pipeline's shape needs to know.
    if config.task == "auto":
        try:
            return check_inputs(config, store, champions)
        except UserError as error:
            raise UserError(f"{error} Or set task, then the data need not be read from here.") from None
    check_code(config, store)
    return config


def _tracking_server(config: PipelineConfig) -> str:
    uri = config.tracking.uri
    if not uri or not uri.startswith("http"):
        return ""
    if urlsplit(uri).username is not None:
        raise UserError(
            "tracking.uri: holds a password, which would end up in the cluster's database. Leave it out, and set "
            "kubeflow.defaults.secrets: {MLFLOW_TRACKING_USERNAME: NAME/KEY, MLFLOW_TRACKING_PASSWORD: NAME/KEY}."
        )
    return uri
