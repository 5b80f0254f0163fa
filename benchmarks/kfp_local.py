"""Compares `kfp-local` with the local runner on the same pipeline and fresh workspaces; prints both times and their ratio.

python benchmarks/kfp_local.py [--pipeline pipeline.yaml] [--repeat 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "pipelines" / "examples" / "breast_cancer" / "pipeline.yaml"


def measure(pipeline: Path, runner: str) -> tuple[float, dict[str, float]]:
    """Returns the wall-clock seconds of a run started from the command line, and its metrics."""
    with tempfile.TemporaryDirectory() as workspace:
        started = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "switchyard",
            "run",
            str(pipeline),
            "--runner",
            runner,
            "--workspace",
            workspace,
            "--json",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
    if done.returncode not in (0, 4):
        sys.exit(f"{runner}: {done.stderr}")
    return seconds, json.loads(done.stdout.splitlines()[-1])["metrics"]


def main() -> None:
    """Runs both alternately and prints the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", type=Path, default=EXAMPLE)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"local": [], "kfp-local": []}
    metrics: dict[str, dict[str, float]] = {}
    for number in range(options.repeat):
        for runner, taken in seconds.items():
            found, metrics[runner] = measure(options.pipeline, runner)
            taken.append(found)
            print(f"{number + 1} of {options.repeat}: {runner} {found:.1f} s", file=sys.stderr, flush=True)
    same = all(abs(metrics["local"][k] - v) <= 1e-6 for k, v in metrics["kfp-local"].items())
    medians = {runner: statistics.median(taken) for runner, taken in seconds.items()}
    ratio = medians["kfp-local"] / medians["local"]
    if options.json:
        print(json.dumps({"seconds": seconds, "medians": medians, "ratio": ratio, "same_metrics": same}))
        return
    for runner, taken in seconds.items():
        print(f"{runner:10} median {medians[runner]:6.1f} s   from {min(taken):.1f} to {max(taken):.1f}")
    print(f"ratio      {ratio:.2f}   (target: at most 1.5)   same metrics to 1e-6: {same}")


if __name__ == "__main__":
    main()
