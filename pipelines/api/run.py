"""`switchyard run`: config in, runner, result out."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from switchyard.components.evaluation.results import CHAMPION, verdict_of, with_blanks
from switchyard.components.metrics import HEADLINE
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.contract import RunResult, runner_class
from switchyard.pipelines.runners.this_machine import stop_on_sigterm
from switchyard.pipelines.terminal.console import PlainTextConsole
from switchyard.pipelines.terminal.output import stderr_console
from switchyard.pipelines.workspace import Workspace, default_workspace


def run_pipeline(
    pipeline: Path | None,
    document: Mapping[str, Any],
    overrides: Sequence[str],
    runner_name: str,
    workspace: Path | None,
    *,
    as_json: bool,
    even_if_unchanged: bool = False,
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
    source = pipeline.resolve() if pipeline else None
    with kind(place, stderr_console(), source, even_if_unchanged=even_if_unchanged) as runner:
        result = runner.run(config)
    if result.status != "cancelled":
        _print(result, root, pipeline, _console(sys.stderr if as_json else sys.stdout))
    if as_json:
        print(json.dumps(to_json(result)), flush=True)
    if result.status == "cancelled":
        raise KeyboardInterrupt
    return result.exit_code


def _console(file: TextIO) -> Console:
    return PlainTextConsole(file=file, highlight=False, width=None if file.isatty() else 160)


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
        "champion": result.champion,
        "models": _models(result),
        "positive_class": result.evaluation.positive_class if result.evaluation else None,
        "metrics": with_blanks(result.metrics, result.evaluation.task) if result.evaluation else {},
        "comparison": _comparison(result),
        "stages": {s: {"status": r.status, "seconds": r.seconds} for s, r in result.stages.items()},
        "unchanged_since": result.unchanged_since,
        "error": result.error,
    }


def _models(result: RunResult) -> dict[str, Any]:
    if result.evaluation is None:
        return {}
    return {
        name: {
            "role": m.role,
            "version": m.version,
            "metrics": with_blanks(m.metrics, result.evaluation.task),
            "passed": m.passed,
            "blessed": m.blessed,
            "failures": m.failures,
        }
        for name, m in result.evaluation.models.items()
    }


def _comparison(result: RunResult) -> dict[str, Any] | None:
    found = result.evaluation
    if found is None:
        return None
    return {
        "split": found.split,
        "rows": found.rows,
        "champion": found.champion,
        "compared_rows": found.compared_rows,
        "not_compared": found.not_compared or None,
        "champion_origin": found.champion_origin or None,
    }


def print_models(result: RunResult, out: Console) -> None:
    """Prints one row per model, the champion's last, and how they differ."""
    evaluation = result.evaluation
    if evaluation is None:
        return
    table = Table(box=None, pad_edge=False)
    names = list(dict.fromkeys([evaluation.metric, *(n for n in HEADLINE if n in evaluation.metrics)]))
    for name in ("model", *names, f"{evaluation.metric}, 95 % interval", "verdict"):
        table.add_column(name)
    for name, model in evaluation.models.items():
        between = model.intervals.get(evaluation.metric)
        title = f"champion (version {model.version}, {model.framework})" if model.role == CHAMPION else name
        verdict = verdict_of(model)
        if name == evaluation.best and result.model_version:
            is_champion = result.model_version == result.champion
            verdict += f", {'champion' if is_champion else 'kept as'} version {result.model_version}"
        values = [f"{model.metrics[n]:.4f}" if n in model.metrics else "" for n in names]
        table.add_row(title, *values, f"{between[0]:.4f} to {between[1]:.4f}" if between else "", Text(verdict))
    out.print(table)
    for line in evaluation.lines():
        out.print(line, markup=False, soft_wrap=True)


def _print(result: RunResult, root: Path, pipeline: Path | None, out: Console) -> None:
    print_models(result, out)
    if result.note:
        out.print(f"registry: {result.note}", markup=False, soft_wrap=True)
    if result.error:
        out.print(f"[bold red]{'verdict' if result.status == 'not_blessed' else 'failed'}[/]: ", end="")
        out.print(result.error, markup=False, soft_wrap=True)
    if result.mlflow_run_id:
        beside = pipeline is not None and root == default_workspace(pipeline)
        where = shlex.quote(str(pipeline)) if beside else f"--workspace {shlex.quote(str(root))}"
        out.print(f"MLflow run {result.mlflow_run_id}: switchyard ui {where}", markup=False, soft_wrap=True)
