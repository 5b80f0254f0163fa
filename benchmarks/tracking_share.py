"""Measures MLflow's share of a run: the time of all its processes in calls to MLflow, divided by the run's wall time.

python benchmarks/tracking_share.py [--rows 20000] [--json]

Two runs: a first one, in which MLflow also creates its database, and one with another learning rate in the same workspace. The
first call of a process imports MLflow. Calls of parallel stages are added up, so the printed share is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from runs import environment, machine, our_command, row
from stock_tfx.trips import write_trips

PROBE = Path(__file__).resolve().parent / "tracking_probe"
TARGET = 0.03
RUNS = {"first run": (), "another run": ("--set", "trainer.hyperparameters.learning_rate=0.002")}


def main() -> None:
    """Runs both and prints the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data" / "trips.csv"
        data.parent.mkdir()
        write_trips(data, options.rows)
        measured = [{"what": what, **_measure(Path(folder), data, extra)} for what, extra in RUNS.items()]
    if options.json:
        table = [row(f"{options.rows:,} rows, MLflow's share, {each['what']}", each["share"], TARGET) for each in measured]
        print(json.dumps({"rows": options.rows, "machine": machine(), "measured": measured, "target": TARGET, "table": table}))
        return
    print(f"{options.rows:,} rows, {machine()}; target: at most {TARGET:.0%}")
    for each in measured:
        longest = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in each["calls"].items())
        print(f"{each['what']:12} {each['tracking']:.2f} s of {each['seconds']:.1f} s: {each['share']:.1%} ({longest})")


def _measure(folder: Path, data: Path, extra: tuple[str, ...]) -> dict[str, Any]:
    spent = folder / "spent.txt"
    spent.write_text("")
    command = [*our_command(folder, data), *extra]
    started = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**environment(PROBE), "TRACKING_PROBE": str(spent)}
    )
    seconds = time.monotonic() - started
    if done.returncode not in (0, 4):  # 4: the second model is no better
        sys.exit(f"the run ended with {done.returncode}:\n{done.stderr[-3000:]}")
    calls: dict[str, float] = {}
    for line in spent.read_text().splitlines():
        name, _, took = line.partition(" ")
        calls[name] = calls.get(name, 0.0) + float(took)
    total = sum(calls.values())
    return {"seconds": seconds, "tracking": total, "share": total / seconds, "calls": calls}


if __name__ == "__main__":
    main()
