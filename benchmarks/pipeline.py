"""Compares the whole pipeline with stock TFX on the same rows, preprocessing, network, metrics and slices.

python benchmarks/pipeline.py [--rows 20000] [--repeats 1] [--trainer tensorflow] [--warm] [--json]

Stock TFX runs with its LocalDagRunner on the same Beam runner, once with an empty cache and once with a full cache. Switchyard
runs likewise, with its additional work (gates, MLflow, infra validation, report). Seconds are wall-clock time including imports;
a stage's seconds are from its start to its end. With `--trainer pytorch` Switchyard trains the same network in PyTorch, and once
more in TensorFlow; a row compares these runs (the first column is TensorFlow's). With `--warm` it runs once more in a new
workspace with warm processes (the first column is stock TFX), then the learning rate is changed four times, in turn without and
with warm processes, and the last run is repeated (the first column is without). Repeats alternate; the
median is printed, with the smallest and largest ratio. The command checks that the rows are equal, and the metrics up to the
effect of another split.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runs import BATCH, NETWORKS, STOCK, environment, machine, most_difference, our_command, row, run, warm_processes
from stock_tfx.trips import write_trips

# Switchyard's stage, TFX's component, target ratio.
STAGES = (
    ("ingest", "CsvExampleGen", 0.06),
    ("statistics", "StatisticsGen", None),
    ("transform", "Transform", 0.4),
    ("training", "Trainer", None),
    ("evaluation", "Evaluator", 0.15),
)
# From this number of rows on, the targets are those of large data.
LARGE = 500_000


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
                table += _warm(Path(folder), data, options.trainer, stock, options.rows)
        repeats.append(table)
    rows = [_median(each) for each in zip(*repeats, strict=True)]
    if options.json:
        found = {"rows": options.rows, "machine": machine(), "measured": rows, "stock": stock, "ours": ours}
        print(json.dumps({**found, "table": list(_rows_of_all(options.rows, rows))}))
        return
    print(f"{options.rows:,} rows, {machine()}")
    print(f"{'':34}{'stock TFX, s':>14}{'Switchyard, s':>15}{'ratio':>8}{'from':>8}{'to':>8}{'target':>8}")
    for each in rows:
        target = "" if each["target"] is None else f"{each['target']:.2f}"
        ratios = "".join(f"{r:8.2f}" for r in (each["ratio"], *each["ratios"]))
        print(f"{each['what']:34}{each['stock']:14.1f}{each['switchyard']:15.1f}{ratios}{target:>8}")
    print("AUC: stock TFX {:.4f}, Switchyard {:.4f}".format(stock["metrics"]["auc"], ours["metrics"]["auc"]))


def _median(same: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Returns, for one row of several tables, the one with the median ratio, and the smallest and largest ratio."""
    ordered = sorted(same, key=lambda each: each["ratio"])
    return {**ordered[len(ordered) // 2], "ratios": (ordered[0]["ratio"], ordered[-1]["ratio"])}


def _table(rows: int, stock: Any, stock_again: Any, ours: Any, ours_again: Any) -> list[dict[str, Any]]:
    measured = [("whole pipeline, cold", stock["seconds"], ours["seconds"], 0.2 if rows >= LARGE else 0.55)]
    measured += [(stage, stock["stages"][theirs], ours["stages"][stage]["seconds"], target) for stage, theirs, target in STAGES]
    measured.append(("second run, all cached", stock_again["seconds"], ours_again["seconds"], 0.15))
    return [_row(*each) for each in measured]


def _row(what: str, theirs: float, ours: float, target: float | None, **more: float) -> dict[str, Any]:
    return {"what": what, "stock": theirs, "switchyard": ours, "ratio": ours / theirs, "target": target, **more}


def _stock(folder: Path, rows: int) -> dict[str, Any]:
    train = rows * 2 // 3
    print("stock TFX", file=sys.stderr)
    return run([sys.executable, str(STOCK / "run.py"), str(folder), str(train // BATCH), str((rows - train) // BATCH)])


def _ours(folder: Path, data: Path, trainer: str, workspace: str = "w") -> dict[str, Any]:
    print(f"Switchyard, {trainer}", file=sys.stderr)
    return run(our_command(folder, data, trainer, workspace))


def _warm(folder: Path, data: Path, trainer: str, stock: dict[str, Any], rows: int) -> list[dict[str, Any]]:
    """Returns rows that compare a warm run with stock TFX, and changed and unchanged runs without and with warm processes."""

    def rate(number: int) -> list[str]:
        return ["--set", f"trainer.hyperparameters.learning_rate={0.001 + number / 1e5}"]

    command = our_command(folder, data, trainer)
    with warm_processes(folder, [*command, *rate(1)]) as variables:
        print(f"Switchyard, {trainer}, warm", file=sys.stderr)
        fresh = run([*command[:-2], str(folder / "w-warm"), "--json"], variables)
        _same(stock, fresh, rows)
        sides = (environment(), variables) * 2
        changed = [run([*command, *rate(number)], each) for number, each in enumerate(sides, 2)]
        again = [run([*command, *rate(5)], each)["seconds"] for each in sides]
    seconds = [found["seconds"] for found in changed]
    beyond = [found["seconds"] - sum(found["stages"][s]["seconds"] for s in ("training", "evaluation")) for found in changed]
    return [
        _row("whole pipeline, warm", stock["seconds"], fresh["seconds"], 0.16 if rows >= LARGE else 0.3),
        _row("changed learning rate: cold, warm", min(seconds[::2]), min(seconds[1::2]), None, beyond=min(beyond[1::2])),
        _row("nothing changed: cold, warm", min(again[::2]), min(again[1::2]), None),
    ]


def _rows_of_all(rows: int, measured: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields the rows of `all.py`'s table."""
    size = f"{rows:,} rows"
    for each in measured:
        what = each["what"]
        if "beyond" in each:
            name = f"{size}, changed learning rate, warm: beyond training and evaluation"
            yield row(name, each["beyond"], 4, unit="s")
        elif what.startswith("nothing changed"):
            yield row(f"{size}, second identical run, warm", each["switchyard"], 0.5, unit="s")
            yield row(f"{size}, second identical run, cold", each["stock"], 1.5, unit="s")
        elif each["target"] is not None and "second run" not in what:
            yield row(f"{size}, {what}, stock TFX = 1", each["ratio"], each["target"])


def _same(stock: dict[str, Any], ours: dict[str, Any], rows: int) -> None:
    if sum(stock["rows"].values()) != rows:
        sys.exit(f"stock TFX read {stock['rows']} of {rows} rows")
    evaluated = ours["metrics"]["example_count"]
    if abs(evaluated / rows - 1 / 3) > 0.02:
        sys.exit(f"Switchyard evaluated {evaluated} of {rows} rows, not a third")
    for name in ("auc", "accuracy", "loss"):
        if abs(stock["metrics"][name] - ours["metrics"][name]) > most_difference(rows):
            sys.exit(f"{name}: stock TFX {stock['metrics'][name]:.4f}, Switchyard {ours['metrics'][name]:.4f}")


if __name__ == "__main__":
    main()
