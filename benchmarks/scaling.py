"""Measures the growth of time and memory with the data: whole runs on 20,000 to 5,000,000 rows with an empty cache.

python benchmarks/scaling.py [--rows 20000 100000 500000 2000000 5000000] [--plot FILE.svg] [--json]

It runs the pipeline of `pipeline.py` without stock TFX. Memory is the sum over the run's processes, shared memory counted once
(PSS), sampled twice a second; the peak is printed. All five sizes take ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from pipeline import environment, machine, our_command
from stock_tfx.trips import write_trips

ROWS = (20_000, 100_000, 500_000, 2_000_000, 5_000_000)
STAGES = ("ingest", "statistics", "transform", "training", "evaluation")
# From 500,000 to 5,000,000 rows.
SMALL, LARGE, MOST_TIME, MOST_MEMORY = 500_000, 5_000_000, 10.5, 1.5
_SAMPLE_SECONDS = 0.5


def main() -> None:
    """Runs all sizes and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw time and memory; SVG or PNG")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = [_measure(rows) for rows in options.rows]
    targets = {"time": MOST_TIME, "memory": MOST_MEMORY}
    found = {"machine": machine(), "measured": measured, "targets": targets, **_growth(measured)}
    if options.plot:
        _plot(measured, options.plot)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{machine()}; seconds, from nothing")
    print(f"{'rows':>10}{'whole':>8}" + "".join(f"{s:>12}" for s in STAGES) + f"{'rows/s':>10}{'peak MiB':>10}")
    for each in measured:
        stages = "".join(f"{each['stages'][s]:12.1f}" for s in STAGES)
        rate = each["rows"] / each["seconds"]
        print(f"{each['rows']:10,}{each['seconds']:8.1f}{stages}{rate:10,.0f}{each['peak_mib']:10,.0f}")
    if "time_ratio" in found:
        print(f"{SMALL:,} to {LARGE:,} rows: time x {found['time_ratio']:.2f} (target: at most {MOST_TIME})", end=", ")
        print(f"memory x {found['memory_ratio']:.2f} (target: at most {MOST_MEMORY})")


def _measure(rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data" / "trips.csv"
        data.parent.mkdir()
        write_trips(data, rows)
        print(f"{rows:,} rows", file=sys.stderr)
        started = time.monotonic()
        process = subprocess.Popen(
            our_command(Path(folder), data), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        )
        peak: list[int] = [0]
        threading.Thread(target=_watch, args=(process.pid, peak), daemon=True).start()
        out, err = process.communicate()
        seconds = time.monotonic() - started
    if process.returncode:
        sys.exit(f"{rows} rows: ended with {process.returncode}:\n{err[-3000:]}")
    result = json.loads(out.splitlines()[-1])
    evaluated = result["metrics"]["example_count"]
    if abs(evaluated / rows - 1 / 3) > 0.02:
        sys.exit(f"{evaluated} of {rows} rows were evaluated, not a third")
    stages = {name: stage["seconds"] for name, stage in result["stages"].items()}
    return {"rows": rows, "seconds": seconds, "stages": stages, "peak_mib": peak[0] / 2**20, "auc": result["metrics"]["auc"]}


def _watch(pid: int, peak: list[int]) -> None:
    while True:
        try:
            root = psutil.Process(pid)
            peak[0] = max(peak[0], sum(map(_pss, [root, *root.children(recursive=True)])))
        except psutil.Error:
            return
        time.sleep(_SAMPLE_SECONDS)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:  # the process has just ended
        return 0


def _growth(measured: list[dict[str, Any]]) -> dict[str, float]:
    by_rows = {each["rows"]: each for each in measured}
    if not {SMALL, LARGE} <= by_rows.keys():
        return {}
    small, large = by_rows[SMALL], by_rows[LARGE]
    return {"time_ratio": large["seconds"] / small["seconds"], "memory_ratio": large["peak_mib"] / small["peak_mib"]}


def _plot(measured: list[dict[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (times, memory) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    rows = [each["rows"] for each in measured]
    times.loglog(rows, [each["seconds"] for each in measured], "o-", color="black", label="whole run")
    for stage in STAGES:
        times.loglog(rows, [each["stages"][stage] for each in measured], ".-", label=stage, linewidth=1)
    times.set(xlabel="rows", ylabel="seconds", title="Time")
    times.legend(fontsize="small")
    memory.semilogx(rows, [each["peak_mib"] / 1024 for each in measured], "o-", color="black")
    memory.set(xlabel="rows", ylabel="GiB", title="Peak memory of all processes (PSS)", ylim=(0, None))
    for axes in (times, memory):
        axes.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
