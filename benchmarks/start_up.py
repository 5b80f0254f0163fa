"""Measures the time to print the command's help, compared with Python's start and exit.

python benchmarks/start_up.py [--repeats 15] [--json]

Both alternate, each in a separate process; the median is printed, with the smallest and largest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from runs import row

ROOT = Path(__file__).resolve().parent.parent
SIDES = {"switchyard --help": ["-m", "switchyard", "--help"], "python, nothing": ["-c", "pass"]}
TARGET = 0.5


def main() -> None:
    """Runs both sides and prints seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.repeats):
        for side, arguments in SIDES.items():
            started = time.monotonic()
            subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=True)
            measured[side].append(time.monotonic() - started)
    rows = [{"what": s, "seconds": statistics.median(t), "least": min(t), "most": max(t)} for s, t in measured.items()]
    if options.json:
        print(
            json.dumps(
                {"measured": rows, "target": TARGET, "table": [row(rows[0]["what"], rows[0]["seconds"], TARGET, unit="s")]}
            )
        )
        return
    for each in rows:
        print(f"{each['what']:20} {each['seconds']:.3f} s ({each['least']:.3f} to {each['most']:.3f})")
    print(f"target: at most {TARGET} s")


if __name__ == "__main__":
    main()
