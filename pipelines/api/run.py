"""A pipeline on this machine: config in, runner, result out."""

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
    """Runs a pipeline on this machine to its end, in processes of its own. What ran before is taken from the cache.

    In a script call it below `if __name__ == "__main__":`, as all that starts processes by Python's `multiprocessing`.

    Args:
        pipeline: path of its YAML, its content as a mapping (relative paths start from the working directory), or what
            `load_config` returned.
        overrides: key -> value, as in `{"trainer.hyperparameters.epochs": 3}`, or texts `KEY=VALUE`.
        trainer: `tensorflow`, `pytorch` or `module:Class`; several are trained and the best is blessed. Sets `trainer.framework`.
        runner: `local`, `kfp-local` or `kfp-docker`.
        workspace: folder for all that the run writes; default: `.switchyard` beside the YAML, or in the working directory.
        even_if_unchanged: evaluate and compare again also when nothing has changed since the last run.
        check: raise the error of a failed stage, of the data gate, and of a registry that refuses the model; else they are in
            the result. A model that is not blessed is a result and never raised.
        progress: show progress on standard error. Without it, warnings are Python's (`UserWarning`).

    Returns:
        The verdict, the metrics, the MLflow run, the report.

    Raises:
        UserError: config, data, code or devices are wrong.
        DataGateError: the data gate stopped the run.
        StageError: a stage failed.
        KeyboardInterrupt: the run was interrupted; finished stages are in the cache.
    """
    config, source, place = load(pipeline, overrides, trainer, workspace)
    kind = runner_class(runner)
    with progress_console(progress) as console, kind(place, console, source, even_if_unchanged=even_if_unchanged) as started:
        result = started.run(config)
    if check:
        result.raise_for_status()
    return result
