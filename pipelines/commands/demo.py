"""`switchyard demo`: runs the breast_cancer example with both trainers and compares them in one table."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from switchyard.components.errors import StageError
from switchyard.components.metrics import HEADLINE
from switchyard.components.process import interpreter
from switchyard.components.training.names import NETWORKS
from switchyard.pipelines.commands.options import (
    handle_errors,
    workspace_option,
)
from switchyard.pipelines.commands.ui import run_link
from switchyard.pipelines.terminal.console import PlainTextConsole
from switchyard.pipelines.workspace import default_workspace

EXAMPLE = Path(__file__).parent.parent / "examples" / "breast_cancer" / "pipeline.yaml"


@click.command("demo")
@workspace_option
@handle_errors
def command(workspace: Path | None) -> None:
    """Run the breast_cancer example with both trainers and compare them."""
    sys.exit(run_demo(workspace))


def run_demo(workspace: Path | None) -> int:
    """Runs the example with both trainers in one run and prints the results; returns the exit code."""
    console = PlainTextConsole(highlight=False)
    root = (workspace or default_workspace(EXAMPLE)).resolve()
    chosen = [part for trainer in NETWORKS for part in ("--trainer", trainer)]
    console.print(f"[bold]switchyard run {EXAMPLE.name} {' '.join(chosen)}[/]", soft_wrap=True)
    arguments = ["run", str(EXAMPLE), *chosen, "--workspace", str(root), "--json"]
    with interpreter.start("switchyard.pipelines.cli", arguments, stdout=subprocess.PIPE, text=True) as run:
        output, _ = run.communicate()
    if run.returncode:
        raise StageError(f"the run ended with exit code {run.returncode}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    console.print(_table(result))
    link = run_link("127.0.0.1", 5000, result["mlflow_experiment_id"], result["mlflow_run_id"])
    console.print(f"MLflow run: {link}", soft_wrap=True)
    console.print(f"The link works while this runs: switchyard ui --workspace {shlex.quote(str(root))}", soft_wrap=True)
    return 0


def _table(result: dict[str, Any]) -> Table:
    models = result["models"]
    table = Table(title="breast_cancer, both trainers", title_justify="left")
    for column in ("", *models):
        table.add_column(column, justify="right" if column else "left")
    for name in HEADLINE:
        if all(name in m["metrics"] for m in models.values()):
            table.add_row(name, *(f"{m['metrics'][name]:.4f}" for m in models.values()))
    seconds = [result["stages"].get(f"training_{name}") for name in models]
    table.add_row("training, s", *(_seconds(s) if s else "" for s in seconds))
    table.add_row("verdict", *("blessed" if m["blessed"] and m["role"] == "candidate" else "" for m in models.values()))
    table.add_row("champion", *(f"version {result['champion']}" if n == result["trainer"] else "" for n in models))
    return table


def _seconds(stage: dict[str, Any]) -> str:
    return f"{stage['seconds']:.1f}" + (" (cached)" if stage["status"] == "cached" else "")
