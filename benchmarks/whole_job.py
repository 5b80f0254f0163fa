"""Compares whole runs, cold and warm, with the same job by hand (`by_hand/trips.py`), in PyTorch and in Keras.

python benchmarks/whole_job.py [--rows 20000] [--repeats 1] [--trainer pytorch tensorflow] [--json]

Both sides read the same file, scale the same columns, train the same network for one epoch in batches of 64, compute metrics of
a third of the rows as a whole and by slice, and save the model; Switchyard checks, validates, registers and reports besides.
Seconds are wall-clock time of the whole command. The sides alternate; the smallest of the repeats of each is compared. Warm runs
are in a new workspace each. The command checks that the number of rows and the metrics agree up to the effect of another split.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from runs import ROOT, environment, machine, most_difference, our_command, row, run, warm_processes
from stock_tfx.trips import write_trips

# Trainer -> its framework by hand.
FRAMEWORKS = {"pytorch": "pytorch", "tensorflow": "keras"}
# Trainer -> targets cold and warm, below and from `_LARGE` rows on.
TARGETS = {"pytorch": ((4.0, 2.0), (None, 2.5)), "tensorflow": ((3.0, 1.5), (None, 1.5))}
_LARGE = 500_000


def main() -> None:
    """Runs both sides and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--trainer", choices=FRAMEWORKS, nargs="+", default=list(FRAMEWORKS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = [_measure(trainer, options.rows, options.repeats) for trainer in options.trainer]
    if options.json:
        table = [each for found in measured for each in _rows(found, options.rows)]
        print(json.dumps({"rows": options.rows, "machine": machine(), "measured": measured, "table": table}))
        return
    print(f"{options.rows:,} rows, {machine()}; seconds")
    print(f"{'':14}{'by hand':>10}{'cold':>10}{'ratio':>8}{'warm':>10}{'ratio':>8}{'AUC by hand':>14}{'AUC':>8}")
    for found in measured:
        hand, cold, warm = (min(found[side]) for side in ("by_hand", "cold", "warm"))
        print(
            f"{found['trainer']:14}{hand:10.1f}{cold:10.1f}{cold / hand:8.2f}{warm:10.1f}{warm / hand:8.2f}"
            f"{found['auc'][0]:14.4f}{found['auc'][1]:8.4f}"
        )


def _rows(found: dict[str, Any], rows: int) -> list[dict[str, Any]]:
    hand = min(found["by_hand"])
    targets = TARGETS[found["trainer"]][rows >= _LARGE]
    what = f"{rows:,} rows, {found['trainer']}, the same job by hand = 1"
    return [
        row(f"{what}, {state}", min(found[state]) / hand, target) for state, target in zip(("cold", "warm"), targets, strict=True)
    ]


def _measure(trainer: str, rows: int, repeats: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"by_hand": [], "cold": [], "warm": []}
    aucs: list[list[float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data" / "trips.csv"
        data.parent.mkdir()
        write_trips(data, rows)

        def command(workspace: str) -> list[str]:
            return our_command(folder, data, trainer, workspace)

        script = [sys.executable, "-m", "benchmarks.by_hand.trips", FRAMEWORKS[trainer], str(data), str(folder / "by_hand")]
        variables = {**environment(), "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
        with warm_processes(folder, command("first")) as warm:
            for repeat in range(repeats):
                print(f"{repeat + 1} of {repeats}: {rows:,} rows, {trainer}", file=sys.stderr)
                hand = run(script, variables)
                sides = {"by_hand": hand, "cold": run(command(f"cold-{repeat}")), "warm": run(command(f"warm-{repeat}"), warm)}
                for side, found in sides.items():
                    seconds[side].append(found["seconds"])
                _same(hand, sides["cold"], rows)
                _same(hand, sides["warm"], rows)
                aucs.append([hand["metrics"]["auc"], sides["warm"]["metrics"]["auc"]])
    return {"trainer": trainer, **seconds, "auc": [statistics.median(each) for each in zip(*aucs, strict=True)]}


def _same(hand: dict[str, Any], ours: dict[str, Any], rows: int) -> None:
    for side in (hand["rows"], ours["metrics"]["example_count"]):
        if abs(side / rows - 1 / 3) > 0.02:
            sys.exit(f"{side} of {rows} rows were evaluated, not a third")
    for name in ("auc", "accuracy", "loss"):
        if abs(hand["metrics"][name] - ours["metrics"][name]) > most_difference(rows):
            sys.exit(f"{name}: by hand {hand['metrics'][name]:.4f}, Switchyard {ours['metrics'][name]:.4f}")


if __name__ == "__main__":
    main()
