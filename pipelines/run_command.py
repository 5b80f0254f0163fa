"""`switchyard run`: config in, runner, result out."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.config import load_config
from pipelines.runners.contract import RunResult
from pipelines.runners.local import stop_on_sigterm
from pipelines.runners.quiet import screen
from pipelines.runners.registry import runner_class
from pipelines.runners.workspace import Workspace, default_workspace

_HEADLINE = ("auc", "accuracy", "mae", "loss")


def run_pipeline(
    pipeline: Path | None,
    document: Mapping[str, Any],
    overrides: Sequence[str],
    runner_name: str,
    workspace: Path | None,
    *,
    as_json: bool,
) -> int:
    """Runs a pipeline and prints the result; returns the exit code.

    Raises:
        UserError: something is wrong before the run starts.
    """
    config = load_config(pipeline, document=document, overrides=overrides)
    root = (workspace or default_workspace(pipeline)).resolve()
    kind = runner_class(runner_name)
    stop_on_sigterm()
    place = Workspace(root)
    place.contain_libraries()
    runner = kind(place, screen(), pipeline.resolve() if pipeline else None)
    try:
        result: RunResult = runner.submit(runner.compile(config))
    finally:
        runner.cancel()
    out = Console(file=sys.stderr if as_json else sys.stdout, highlight=False)
    _print(result, root, pipeline, out)
    if as_json:
        print(json.dumps(to_json(result)), flush=True)
    return result.exit_code


def to_json(result: RunResult) -> dict[str, Any]:
    """Returns the object that `--json` prints."""
    return {
        "pipeline": result.pipeline,
        "mlflow_run_id": result.mlflow_run_id,
        "mlflow_experiment_id": result.mlflow_experiment_id,
        "status": result.status,
        "trainer": result.trainer,
        "blessed": result.blessed,
        "model_version": result.model_version,
        "metrics": dict(result.metrics),
        "stages": {s: {"status": r.status, "seconds": r.seconds} for s, r in result.stages.items()},
        "error": result.error,
    }


def _print(result: RunResult, root: Path, pipeline: Path | None, out: Console) -> None:
    if result.metrics:
        table = Table(box=None, pad_edge=False, title=None)
        names = [n for n in _HEADLINE if n in result.metrics]
        for name in ("trainer", *names, "verdict"):
            table.add_column(name)
        version = f", version {result.model_version} is champion" if result.model_version else ""
        verdict = ("blessed" if result.blessed else "not blessed") + version
        table.add_row(result.trainer, *(f"{result.metrics[n]:.4f}" for n in names), verdict)
        out.print(table)
    if result.error:
        out.print(f"[bold red]{'failed' if result.status == 'failed' else 'verdict'}[/]: ", end="")
        out.print(result.error, markup=False, soft_wrap=True)
    if result.mlflow_run_id:
        beside = pipeline is not None and root == default_workspace(pipeline)
        where = shlex.quote(str(pipeline)) if beside else f"--workspace {shlex.quote(str(root))}"
        out.print(f"MLflow run {result.mlflow_run_id}: switchyard ui {where}", markup=False, soft_wrap=True)
