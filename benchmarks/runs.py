"""Runs of the command for the benchmarks: the trips' pipeline, its environment, warm processes; and a table's rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from stock_tfx.trips import LABEL

ROOT = Path(__file__).resolve().parent.parent
STOCK = Path(__file__).resolve().parent / "stock_tfx"
BATCH = 64
# Trainer -> its network.
NETWORKS = {"tensorflow": "network.py", "pytorch": "network_pytorch.py"}
_NO_BETTER = 4  # exit code: the model is not better than the champion
_IMPORT_SECONDS = 900.0


def machine() -> str:
    """Returns a description of the machine and its load."""
    model = next((x.partition(":")[2].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "")
    return f"{os.cpu_count()} cores, {model}, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}"


def environment(*before: Path) -> dict[str, str]:
    """Returns the environment variables of either side, without warm processes; `before` is prepended to Python's path."""
    folders = os.pathsep.join(map(str, [*before, ROOT, STOCK]))
    return {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": folders, "SWITCHYARD_WARM": "0"}


def our_command(folder: Path, data: Path, trainer: str = "tensorflow", workspace: str = "w", **more: Any) -> list[str]:
    """Returns the command of a run of the trips in `data` with its workspace in `folder`; `more` adds sections to its config."""
    document = {
        "name": "trips",
        "data": {"path": str(data), "splits": {"train": 2, "eval": 1}},
        "label": LABEL,
        "preprocessing": str(STOCK / "features.py"),
        "trainer": {
            "framework": trainer,
            "model": str(STOCK / NETWORKS[trainer]),
            "hyperparameters": {"epochs": 1, "batch_size": BATCH, "learning_rate": 0.001},
        },
        "evaluation": {"slices": ["payment"]},
        **more,
    }
    return command_of(document, folder / "pipeline.yaml", folder / workspace)


def command_of(document: Mapping[str, Any], pipeline: Path, workspace: Path) -> list[str]:
    """Writes a config to `pipeline`; returns the command that runs it."""
    pipeline.write_text(yaml.safe_dump(dict(document)), encoding="utf-8")
    return [sys.executable, "-m", "switchyard", "run", str(pipeline), "--workspace", str(workspace), "--json"]


def run(command: Sequence[str], variables: Mapping[str, str] | None = None, timeout: float | None = None) -> dict[str, Any]:
    """Returns what a command prints as JSON on its last line, with `seconds`, its wall-clock time, unless it prints them.

    Raises:
        SystemExit: the command failed.
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=variables or environment(), timeout=timeout
    )
    seconds = time.monotonic() - started
    if done.returncode not in (0, _NO_BETTER):
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-5000:]}")
    return {"seconds": seconds, **json.loads(done.stdout.splitlines()[-1])}


@contextmanager
def warm_processes(folder: Path, first: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yields the variables of commands that use warm processes, which `first`, a run, has left; stops these at the end.

    Args:
        folder: where their sockets are, so that they are this benchmark's alone.
        first: command of a run with each framework that is measured.
    """
    kept = {name: value for name, value in environment().items() if name not in ("CI", "SWITCHYARD_WARM")}
    variables = {**kept, "XDG_RUNTIME_DIR": str(folder)}
    status = [sys.executable, "-m", "switchyard", "warm"]
    try:
        run(first, variables)
        deadline = time.monotonic() + _IMPORT_SECONDS
        while True:
            said = subprocess.check_output([*status, "status"], cwd=ROOT, env=variables, text=True)
            if "run" in said and "importing" not in said:
                break
            if time.monotonic() > deadline:
                sys.exit(f"no warm processes after {_IMPORT_SECONDS:g} s:\n{said}")
            time.sleep(1)
        yield variables
    finally:
        subprocess.run([*status, "stop"], cwd=ROOT, env=variables, check=True, capture_output=True)


def most_difference(rows: int) -> float:
    """Returns by how much metrics of two trainings may differ: networks of few steps keep their start's difference."""
    return 0.02 if rows >= 20_000 else 0.2


def row(what: str, measured: float, target: float | None = None, *, at_least: bool = False, unit: str = "") -> dict[str, Any]:
    """Returns a row of the table of `all.py`; `at_least` says on which side of the target it should be."""
    return {"what": what, "measured": measured, "target": target, "at_least": at_least, "unit": unit}
