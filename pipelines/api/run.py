"""Runs a pipeline on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from switchyard.pipelines.api.pipeline_argument import load
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.runners.contract import RunResult, runner_class
from switchyard.pipelines.terminal.output import progress_console


def run(
    pipeline: str | os.PathLike[str] | Mapping[str, Any] | PipelineConfig,
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    trainer: str | Sequence[str] | None = None,
    runner: str = "local",
    workspace: str | os.PathLike[str] | None = None,
    even_if_unchanged: bool = False,
    check: bool = True,
    progress: bool = False,
) -> RunResult:
    """Runs a pipeline on this machine to its end, in processes of its own; unchanged stages come from the cache.

    In a script, call it below `if __name__ == "__main__":`, as required by Python's `multiprocessing`.

    Args:
        pipeline: path of its YAML, its content as a mapping (relative paths start from the working directory), or what
            `load_config` returned.
        overrides: key -> value, as in `{"trainer.hyperparameters.epochs": 3}`, or texts `KEY=VALUE`.
        trainer: a framework or `module:Class`; with several, the best is blessed. Sets `trainer.framework`.
        runner: `local`, `kfp-local` or `kfp-docker`.
        workspace: folder for everything that the run writes; default: `.switchyard` beside the YAML, or in the working directory.
        even_if_unchanged: evaluate and compare even if nothing has changed since the last run.
        check: raise the error of a failed stage, of the data gate, or of a registry that refuses the model; otherwise the result
            contains it. A model that is not blessed never raises.
        progress: show progress on standard error. Without it, warnings are Python's (`UserWarning`).

    Returns:
        The result with the verdict, the metrics, the MLflow run and the report.

    Raises:
        UserError: config, data, code or devices are invalid.
        DataGateError: the data gate stopped the run.
        StageError: a stage failed.
        KeyboardInterrupt: the run was interrupted; finished stages are cached.
    """
    config, source, place = load(pipeline, overrides, trainer, workspace)
    kind = runner_class(runner)
    with progress_console(progress) as console, kind(place, console, source, even_if_unchanged=even_if_unchanged) as started:
        result = started.run(config)
    if check:
        result.raise_for_status()
    return result
