"""`switchyard demo`: the breast_cancer example with both trainers, side by side in one table."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from components.errors import StageError
from pipelines.runners.workspace import Workspace, default_workspace
from pipelines.ui_command import run_link

EXAMPLE = Path(__file__).parent / "examples" / "breast_cancer" / "pipeline.yaml"
TRAINERS = ("tensorflow", "pytorch")


def run_demo(workspace: Path | None) -> int:
    """Runs the example once per trainer, each as a user would, and prints the comparison; returns the exit code."""
    console = Console(highlight=False)
    root = (workspace or default_workspace(EXAMPLE)).resolve()
    results = []
    for trainer in TRAINERS:
        console.print(f"[bold]switchyard run {EXAMPLE.name} --trainer {trainer}[/]")
        results.append(_run(trainer, root))
    Workspace(root).contain_libraries()
    champion = _champion(root)
    console.print(_table(results, champion))
    for result in results:
        link = run_link("127.0.0.1", 5000, result["mlflow_experiment_id"], result["mlflow_run_id"])
        console.print(f"{result['trainer']}: {link}", soft_wrap=True)
    console.print(f"The links work while this runs: switchyard ui --workspace {shlex.quote(str(root))}", soft_wrap=True)
    return 0


def _run(trainer: str, root: Path) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "run",
        str(EXAMPLE),
        "--trainer",
        trainer,
        "--workspace",
        str(root),
        "--json",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise StageError(f"the run with {trainer} ended with exit code {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _champion(root: Path) -> str | None:
    from components.tracking import champion
    from pipelines.config import load_config
    from pipelines.runners.run_tracker import tracking_uri

    config = load_config(EXAMPLE)
    return champion(tracking_uri(config, Workspace(root)), config.model_name)


def _table(results: list[dict[str, Any]], champion: str | None) -> Table:
    table = Table(title="breast_cancer, both trainers", title_justify="left")
    for column in ("", *(r["trainer"] for r in results)):
        table.add_column(column, justify="right" if column else "left")
    for name in ("auc", "accuracy", "loss"):
        table.add_row(name, *(f"{r['metrics'][name]:.4f}" for r in results))
    for stage in results[0]["stages"]:
        table.add_row(f"{stage}, s", *(_seconds(r["stages"][stage]) for r in results))
    table.add_row("MLflow run", *(r["mlflow_run_id"][:8] for r in results))
    table.add_row("model version", *(r["model_version"] or "" for r in results))
    table.add_row("champion", *("yes" if r["model_version"] == champion else "" for r in results))
    return table


def _seconds(stage: dict[str, Any]) -> str:
    return f"{stage['seconds']:.1f}" + (" (cached)" if stage["status"] == "cached" else "")
