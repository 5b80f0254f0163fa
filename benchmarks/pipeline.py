"""Compares the whole pipeline with stock TFX on the same rows, preprocessing, network, metrics and slices.

python benchmarks/pipeline.py [--rows 20000] [--repeats 1] [--trainer tensorflow] [--warm] [--json]

Stock TFX runs with its LocalDagRunner on the same Beam runner, once with an empty cache and once with a full cache. Switchyard
runs likewise, with its additional work (gates, MLflow, infra validation, report). Seconds are wall-clock time including imports;
a stage's seconds are from its start to its end. With `--trainer pytorch` Switchyard trains the same network in PyTorch, and once
more in TensorFlow; a row compares these runs (the first column is TensorFlow's). With `--warm` the learning rate is changed
four times, in turn without and with warm processes; two rows compare them (the first column is without). Repeats alternate; the
median is printed, with the smallest and largest ratio. The command checks that the rows are equal, and the metrics up to the
effect of another split.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from stock_tfx.trips import LABEL, write_trips

ROOT = Path(__file__).resolve().parent.parent
STOCK = Path(__file__).resolve().parent / "stock_tfx"
BATCH = 64
# Trainer -> its network.
NETWORKS = {"tensorflow": "network.py", "pytorch": "network_pytorch.py"}
# Switchyard's stage, TFX's component, target ratio.
STAGES = (
    ("ingest", "CsvExampleGen", 0.06),
    ("statistics", "StatisticsGen", None),
    ("transform", "Transform", 0.4),
    ("training", "Trainer", None),
    ("evaluation", "Evaluator", 0.15),
)
_MOST_DIFFERENCE = 0.02


def main() -> None:
    """Runs both and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--trainer", choices=NETWORKS, default="tensorflow")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    repeats = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data" / "trips.csv"
            data.parent.mkdir()
            write_trips(data, options.rows)
            stock, stock_again = (_stock(Path(folder), options.rows) for _ in range(2))
            ours, ours_again = (_ours(Path(folder), data, options.trainer) for _ in range(2))
            _same(stock, ours, options.rows)
            table = _table(options.rows, stock, stock_again, ours, ours_again)
            if options.trainer != "tensorflow":
                of_tensorflow = _ours(Path(folder), data, "tensorflow", "w-tensorflow")
                _same(stock, of_tensorflow, options.rows)
                table.append(_row("PyTorch run against TensorFlow run", of_tensorflow["seconds"], ours["seconds"], 1.0))
            if options.warm:
                table += _warm(Path(folder), data, options.trainer)
        repeats.append(table)
    rows = [_median(each) for each in zip(*repeats, strict=True)]
    if options.json:
        print(json.dumps({"rows": options.rows, "machine": machine(), "measured": rows, "stock": stock, "ours": ours}))
        return
    print(f"{options.rows:,} rows, {machine()}")
    print(f"{'':34}{'stock TFX, s':>14}{'Switchyard, s':>15}{'ratio':>8}{'from':>8}{'to':>8}{'target':>8}")
    for row in rows:
        target = "" if row["target"] is None else f"{row['target']:.2f}"
        ratios = "".join(f"{r:8.2f}" for r in (row["ratio"], *row["ratios"]))
        print(f"{row['what']:34}{row['stock']:14.1f}{row['switchyard']:15.1f}{ratios}{target:>8}")
    print("AUC: stock TFX {:.4f}, Switchyard {:.4f}".format(stock["metrics"]["auc"], ours["metrics"]["auc"]))


def _median(same: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Returns, for one row of several tables, the one with the median ratio, and the smallest and largest ratio."""
    ordered = sorted(same, key=lambda row: row["ratio"])
    return {**ordered[len(ordered) // 2], "ratios": (ordered[0]["ratio"], ordered[-1]["ratio"])}


def _table(rows: int, stock: Any, stock_again: Any, ours: Any, ours_again: Any) -> list[dict[str, Any]]:
    whole = 0.2 if rows >= 500_000 else 0.33
    measured = [("whole pipeline", stock["seconds"], ours["seconds"], whole)]
    measured += [(stage, stock["stages"][theirs], ours["stages"][stage]["seconds"], target) for stage, theirs, target in STAGES]
    measured.append(("second run, all cached", stock_again["seconds"], ours_again["seconds"], 0.15))
    return [_row(*each) for each in measured]


def _row(what: str, theirs: float, ours: float, target: float | None) -> dict[str, Any]:
    return {"what": what, "stock": theirs, "switchyard": ours, "ratio": ours / theirs, "target": target}


def _stock(folder: Path, rows: int) -> dict[str, Any]:
    train = rows * 2 // 3
    print("stock TFX", file=sys.stderr)
    command = [sys.executable, str(STOCK / "run.py"), str(folder), str(train // BATCH), str((rows - train) // BATCH)]
    return _run(command)


def our_command(folder: Path, data: Path, trainer: str = "tensorflow", workspace: str = "w") -> list[str]:
    """Returns the command of a run on `data` with its workspace in `folder`."""
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
    }
    pipeline = folder / "pipeline.yaml"
    pipeline.write_text(yaml.safe_dump(document), encoding="utf-8")
    return [sys.executable, "-m", "switchyard", "run", str(pipeline), "--workspace", str(folder / workspace), "--json"]


def _ours(folder: Path, data: Path, trainer: str, workspace: str = "w") -> dict[str, Any]:
    command = our_command(folder, data, trainer, workspace)
    print(f"Switchyard, {trainer}", file=sys.stderr)
    started = time.monotonic()
    found = _run(command)
    return {**found, "seconds": time.monotonic() - started}


def environment(*before: Path) -> dict[str, str]:
    """Returns the environment variables of either side; `before` is prepended to Python's path."""
    folders = os.pathsep.join(map(str, [*before, ROOT, STOCK]))
    return {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": folders, "SWITCHYARD_WARM": "0"}


def _warm_environment(folder: Path) -> dict[str, str]:
    """Returns the variables of runs that use warm processes, of this benchmark alone."""
    kept = {name: value for name, value in environment().items() if name not in ("CI", "SWITCHYARD_WARM")}
    return {**kept, "XDG_RUNTIME_DIR": str(folder)}


def _run(command: list[str], variables: dict[str, str] | None = None) -> dict[str, Any]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=variables or environment())
    if done.returncode not in (0, 4):  # 4: the model is not better than the champion
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-5000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _warm(folder: Path, data: Path, trainer: str) -> list[dict[str, Any]]:
    """Returns rows that compare runs with a changed learning rate, and unchanged ones, without and with warm processes."""
    variables = _warm_environment(folder)
    command = our_command(folder, data, trainer)
    status = [sys.executable, "-m", "switchyard", "warm"]

    def seconds(environment: dict[str, str], *settings: str) -> float:
        started = time.monotonic()
        _run([*command, *settings], environment)
        return time.monotonic() - started

    def rate(number: int) -> list[str]:
        return ["--set", f"trainer.hyperparameters.learning_rate={0.001 + number / 1e5}"]

    seconds(variables, *rate(1))  # leaves them
    while (
        "importing" in (said := subprocess.check_output([*status, "status"], cwd=ROOT, env=variables, text=True))
        or "run" not in said
    ):
        time.sleep(1)
    try:
        changed = [seconds(each, *rate(number)) for number, each in enumerate((environment(), variables) * 2, 2)]
        again = [seconds(each, *rate(5)) for each in (environment(), variables) * 2]
    finally:
        subprocess.run([*status, "stop"], cwd=ROOT, env=variables, check=True, capture_output=True)
    rows = (("changed learning rate: cold, warm", changed), ("nothing changed: cold, warm", again))
    return [_row(what, min(found[::2]), min(found[1::2]), None) for what, found in rows]


def _same(stock: dict[str, Any], ours: dict[str, Any], rows: int) -> None:
    if sum(stock["rows"].values()) != rows:
        sys.exit(f"stock TFX read {stock['rows']} of {rows} rows")
    evaluated = ours["metrics"]["example_count"]
    if abs(evaluated / rows - 1 / 3) > 0.02:
        sys.exit(f"Switchyard evaluated {evaluated} of {rows} rows, not a third")
    for name in ("auc", "accuracy", "loss"):
        if abs(stock["metrics"][name] - ours["metrics"][name]) > _MOST_DIFFERENCE:
            sys.exit(f"{name}: stock TFX {stock['metrics'][name]:.4f}, Switchyard {ours['metrics'][name]:.4f}")


def machine() -> str:
    """Returns a description of the machine."""
    model = next((x.partition(":")[2].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "")
    return f"{os.cpu_count()} cores, {model}, Python {sys.version.split()[0]}"


if __name__ == "__main__":
    main()
