"""Compares whole runs on many columns with runs on ten, and with stock TFX on the same columns.

python benchmarks/wide_data.py [--rows 2000] [--columns 10 1500] [--texts 0] [--missing 0] [--no-stock] [--limit 1200] [--json]

All columns are numbers but `payment`, by which the evaluation slices, and a share `--texts` of texts with 20 words each; of the
numbers a share `--missing` has gaps. Switchyard runs with its default preprocessing and model, cold; stock TFX scales every
number and indexes every text as `stock_tfx/module.py` does. It is stopped after `--limit` seconds; its seconds are then at least
these. The command checks that both sides evaluate all rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from runs import BATCH, STOCK, command_of, environment, machine, row, run
from stock_tfx.trips import LABEL

TARGET = 6.0


def main() -> None:
    """Runs both sides and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--columns", type=int, nargs="+", default=[10, 1500])
    parser.add_argument("--texts", type=float, default=0.0, help="share of columns of text (0)")
    parser.add_argument("--missing", type=float, default=0.0, help="share of columns with gaps (0)")
    parser.add_argument("--trainer", choices=("tensorflow", "pytorch"), default="tensorflow")
    parser.add_argument("--no-stock", action="store_true")
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds until stock TFX is stopped")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = []
    for columns in options.columns:
        print(f"{columns:,} columns", file=sys.stderr)
        measured.append(_measure(columns, options))
    if options.json:
        print(json.dumps({"machine": machine(), "measured": measured, "table": _rows(measured, options)}))
        return
    print(f"{options.rows:,} rows, {options.texts:.0%} texts, {options.missing:.0%} with gaps, {machine()}; seconds")
    for found in measured:
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found["stages"].items())
        stock = found["stock"]
        beside = "" if stock is None else f"   stock TFX {'more than ' * found['stopped']}{stock:.1f}"
        print(f"{found['columns']:6,} columns {found['seconds']:8.1f}{beside}   ({stages})")
    for each in _rows(measured, options):
        print(f"{each['what']}: {each['measured']:.2f}")


def _rows(measured: list[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    few, many = measured[0], measured[-1]
    what = f"{options.rows:,} rows x {many['columns']:,} columns"
    what += f", {options.texts:.0%} of them texts" if options.texts else ""
    what += f", {options.missing:.0%} with gaps" if options.missing else ""
    rows = [row(f"{what}, {few['columns']} columns = 1", many["seconds"] / few["seconds"], TARGET, unit="x")]
    if many["stock"] is not None:
        at_most = ", stopped: at most" if many["stopped"] else ""
        rows.append(row(f"{what}, stock TFX = 1{at_most}", many["seconds"] / many["stock"]))
    return rows


def _measure(columns: int, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        write(folder / "data" / "wide.csv", options.rows, columns, options.texts, options.missing)
        document = {
            "name": "wide",
            "data": {"path": str(folder / "data" / "wide.csv"), "splits": {"train": 2, "eval": 1}},
            "label": LABEL,
            "trainer": {"framework": options.trainer, "hyperparameters": {"epochs": 1, "batch_size": BATCH}},
            "evaluation": {"slices": ["payment"]},
        }
        ours = run(command_of(document, folder / "pipeline.yaml", folder / "w"))
        stock, stopped = (None, False) if options.no_stock else _stock(folder, options)
    if abs(ours["metrics"]["example_count"] / options.rows - 1 / 3) > 0.05:
        sys.exit(f"Switchyard evaluated {ours['metrics']['example_count']} of {options.rows} rows, not a third")
    stages = {stage: found["seconds"] for stage, found in ours["stages"].items()}
    return {"columns": columns, "seconds": ours["seconds"], "stages": stages, "stock": stock, "stopped": stopped}


def _stock(folder: Path, options: argparse.Namespace) -> tuple[float, bool]:
    """Returns stock TFX's seconds, and whether it was stopped."""
    train = options.rows * 2 // 3
    steps = [str(train // BATCH), str((options.rows - train) // BATCH)]
    command = [sys.executable, str(STOCK / "run.py"), str(folder), *steps, "module_wide.py"]
    try:
        found = run(command, environment(), timeout=options.limit)
    except subprocess.TimeoutExpired:
        return options.limit, True
    if sum(found["rows"].values()) != options.rows:
        sys.exit(f"stock TFX read {found['rows']} of {options.rows} rows")
    return found["seconds"], False


def write(path: Path, rows: int, columns: int, texts: float = 0.0, missing: float = 0.0) -> None:
    """Writes `columns` columns beside the label as CSV; the first is `payment`."""
    random = np.random.default_rng(7)
    payment = random.choice(["cash", "card", "other"], rows, p=[0.35, 0.5, 0.15])
    words = round(texts * columns)
    numbers = random.normal(size=(rows, columns - 1 - words)).round(4)
    logit = 2 * (payment == "card") - 1 + numbers[:, 0]
    gaps = round(missing * columns)
    numbers[:, 1 : 1 + gaps][random.random((rows, min(gaps, numbers.shape[1] - 1))) < 0.1] = np.nan
    found = {"payment": payment} | {f"n{i}": numbers[:, i] for i in range(numbers.shape[1])}
    found |= {f"t{i}": random.choice([f"word {n}" for n in range(20)], rows) for i in range(words)}
    frame = pd.DataFrame(found | {LABEL: (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)})
    frame.to_csv(path, index=False)


if __name__ == "__main__":
    main()
