"""Runs every benchmark with a target and prints one table: half an hour on two cores, mostly stock TFX and 5,000,000 rows.

python benchmarks/all.py [--repeats 1] [--output FILE.json] [--plot FILE.svg]

Each row comes from a separate command in this folder, which documents its method. `--output` saves the output of all commands.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import machine

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """Runs all commands and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each comparison with stock TFX")
    parser.add_argument("--output", type=Path, metavar="FILE", help="all figures as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="see scaling.py")
    options = parser.parse_args()
    repeats = ["--repeats", str(options.repeats)]
    plot = ["--plot", str(options.plot)] if options.plot else []
    found = {
        "start_up": _run("start_up.py"),
        "20k": _run("pipeline.py", "--rows", "20000", *repeats),
        "500k": _run("pipeline.py", "--rows", "500000", *repeats),
        "trainers": _run("trainers.py"),
        "tracking": _run("tracking_share.py", "--rows", "500000"),
        "scaling": _run("scaling.py", *plot),
    }
    if options.output:
        options.output.write_text(json.dumps({"machine": machine(), **found}, indent=1), encoding="utf-8")
    print(machine())
    print(f"{'':72}{'measured':>10}{'target':>10}")
    for what, value, target, at_least in _rows(found):
        reached = value >= target if at_least else value <= target
        bound = f"{'>=' if at_least else '<='} {target:g}"
        print(f"{what:72}{value:10.3f}{bound:>10}  {'reached' if reached else ''}")


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, float, float, bool]]:
    for size in ("20k", "500k"):
        for row in found[size]["measured"]:
            if row["target"] is not None:
                yield f"{row['what']}, {size} rows, against stock TFX", row["ratio"], row["target"], False
    for pair in found["trainers"]["settings"][0]["pairs"]:
        yield pair["what"], pair["ratio"], pair["target"], pair["target"] < 1
    tracking, scaling, start_up = found["tracking"], found["scaling"], found["start_up"]
    for row in tracking["measured"]:
        yield f"MLflow's share, {row['what']}, 500k rows", row["share"], tracking["target"], False
    yield "time, 5M rows against 500k", scaling["time_ratio"], scaling["targets"]["time"], False
    yield "peak memory, 5M rows against 500k", scaling["memory_ratio"], scaling["targets"]["memory"], False
    yield "switchyard --help, seconds", start_up["measured"][0]["seconds"], start_up["target"], False


def _run(script: str, *arguments: str) -> dict[str, Any]:
    print(f"{script} {' '.join(arguments)}", file=sys.stderr)
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{script} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
