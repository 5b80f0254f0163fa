"""Measures the growth of time and memory with the data: whole runs on 20,000 to 5,000,000 rows with an empty cache.

python benchmarks/scaling.py [--rows 20000 100000 500000 2000000 5000000] [--plot FILE.svg] [--json]
python benchmarks/scaling.py --many columns classes words slices [--share 1] [--json]

It runs the pipeline of `pipeline.py` without stock TFX. Memory is the sum over the run's processes, shared memory counted once
(PSS), sampled twice a second; the peak is printed. All five sizes take ten minutes on two cores.

With `--many` it runs on 5,000 columns, 1,000 classes, 10,000,000 different words or 100 slices (see `many.py`; `--share` of
these), and on a tenth of that; a line each, as it is measured. The time should grow at most as the size. `still` is the longest
time in which the run's progress said nothing new.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from many import MANY, document
from runs import command_of, environment, machine, our_command, row
from stock_tfx.trips import write_trips

ROWS = (20_000, 100_000, 500_000, 2_000_000, 5_000_000)
STAGES = ("ingest", "statistics", "transform", "training", "evaluation")
# From 500,000 to 5,000,000 rows.
SMALL, LARGE, MOST_TIME, MOST_MEMORY = 500_000, 5_000_000, 10.5, 1.5
# With 5,000,000 rows.
LEAST_RATE, MOST_GIB = 40_000, 2.6
_SAMPLE_SECONDS = 0.5


def main() -> None:
    """Runs all sizes and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--many", choices=MANY, nargs="+", help="instead of rows")
    parser.add_argument("--share", type=float, default=1.0, help="of the sizes of --many")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw time and memory; SVG or PNG")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.many:
        found = {"machine": machine(), "many": [_many(name, options) for name in options.many]}
        if options.json:
            print(json.dumps({**found, "table": [each["row"] for each in found["many"]]}))
        return
    measured = [_trips(rows) for rows in options.rows]
    targets = {"time": MOST_TIME, "memory": MOST_MEMORY}
    found = {"machine": machine(), "measured": measured, "targets": targets, **_growth(measured)}
    if options.plot:
        _plot(measured, options.plot)
    if options.json:
        print(json.dumps({**found, "table": _rows(found)}))
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


def _rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    largest = found["measured"][-1]
    size = f"{largest['rows']:,} rows, whole run"
    rate, memory = (LEAST_RATE, MOST_GIB) if largest["rows"] >= LARGE else (None, None)
    rows.append(row(f"{size}, rows/s", largest["rows"] / largest["seconds"], rate, at_least=True))
    rows.append(row(f"{size}, peak memory", largest["peak_mib"] / 1024, memory, unit="GiB"))
    if "time_ratio" in found:
        rows.append(row(f"time, {LARGE:,} rows against {SMALL:,}", found["time_ratio"], MOST_TIME, unit="x"))
        rows.append(row(f"peak memory, {LARGE:,} rows against {SMALL:,}", found["memory_ratio"], MOST_MEMORY, unit="x"))
    return rows


def _trips(rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data" / "trips.csv"
        data.parent.mkdir()
        write_trips(data, rows)
        print(f"{rows:,} rows", file=sys.stderr)
        found = _measure(our_command(Path(folder), data))
    evaluated = found["metrics"]["example_count"]
    if abs(evaluated / rows - 1 / 3) > 0.02:
        sys.exit(f"{evaluated} of {rows} rows were evaluated, not a third")
    return {"rows": rows, "auc": found["metrics"]["auc"], **found}


def _many(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the measurements of both sizes, and prints their line."""
    many = MANY[name]
    measured = []
    for size in (max(2, round(many.small * options.share)), max(2, round(many.size * options.share))):
        with tempfile.TemporaryDirectory() as folder:
            config = document(name, Path(folder), size)
            print(f"{size:,} {name}", file=sys.stderr)
            measured.append({"size": size, **_measure(command_of(config, Path(folder) / "pipeline.yaml", Path(folder) / "w"))})
    small, large = measured
    growth = large["seconds"] / small["seconds"]
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in large["stages"].items())
    print(
        f"{large['size']:,} {name}: {large['seconds']:.1f} s, {growth:.2f} times that of {small['size']:,}; "
        f"{large['peak_mib']:,.0f} MiB; still {large['still']:.0f} s ({stages})",
        file=sys.stderr if options.json else sys.stdout,
        flush=True,
    )
    what = f"time, {large['size']:,} {name}, {small['size']:,} = 1"
    return {"what": name, "measured": measured, "row": row(what, growth, large["size"] / small["size"], unit="x")}


def _measure(command: Sequence[str]) -> dict[str, Any]:
    """Returns a run's seconds, whole and by stage, its metrics, peak memory and the longest time without new progress."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    peak: list[int] = [0]
    said: list[tuple[float, str]] = [(started, "")]
    watches = [
        threading.Thread(target=_watch, args=(process.pid, peak), daemon=True),
        threading.Thread(target=_listen, args=(process.stderr, said), daemon=True),
    ]
    for thread in watches:
        thread.start()
    assert process.stdout
    out = process.stdout.read()
    process.wait()
    seconds = time.monotonic() - started
    watches[1].join()
    if process.returncode not in (0, 3, 4):  # 3, 4: the gates' verdicts
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n" + "\n".join(line for _, line in said[-30:]))
    result = json.loads(out.splitlines()[-1])
    times = [*(at for at, _ in _new(said)), started + seconds]
    return {
        "seconds": seconds,
        "stages": {name: stage["seconds"] for name, stage in result["stages"].items()},
        "peak_mib": peak[0] / 2**20,
        "metrics": result.get("metrics"),
        "still": max(later - earlier for earlier, later in itertools.pairwise(times)),
    }


def _listen(stream: Any, said: list[tuple[float, str]]) -> None:
    for line in stream:
        said.append((time.monotonic(), line.rstrip()))


def _new(said: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Returns the lines that say something that no earlier one says, apart from the time."""
    found: dict[str, float] = {}
    for at, line in said:
        found.setdefault(re.sub(r"^\d\d:\d\d:\d\d |, \d+ s$", "", line), at)
    return [(at, text) for text, at in found.items()]


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
