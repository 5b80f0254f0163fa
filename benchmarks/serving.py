"""Compares `switchyard serve` with `mlflow models serve` on the same bundle and requests, alternately. Needs wrk.

python benchmarks/serving.py [--seconds 5] [--json]

Both get the same request body at MLflow's /invocations. The ceiling is the bundle's predict in a loop, without HTTP.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "pipelines" / "examples" / "breast_cancer"
CONCURRENCY, ROWS = (1, 8, 32), (1, 64)
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
_CEILING = """
import sys, time, pandas as pd
from switchyard.components.import_order import import_torch_first
import_torch_first()
from switchyard.components.bundle.model import load_bundle
bundle = load_bundle(sys.argv[1])
frame = pd.read_csv(sys.argv[2])
frame = pd.concat([frame] * 2)[[f.name for f in bundle.info.features]]
for rows in map(int, sys.argv[3:]):
    few = frame.head(rows)
    for _ in range(20):
        bundle.predict(few)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < 3:
        bundle.predict(few)
        done += 1
    print(rows, done / (time.perf_counter() - began))
"""


def main() -> None:
    """Measures both frameworks and prints a table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, help="of load for each number")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is needed: apt-get install wrk")
    found: list[dict[str, Any]] = []
    ceilings: dict[str, dict[int, float]] = {}
    with tempfile.TemporaryDirectory() as work:
        for framework, bundle in train(Path(work)).items():
            ceilings[framework] = _ceiling(bundle)
            with _ours(bundle) as ours, _mlflow(bundle) as theirs:
                for rows in ROWS:
                    script = _script(Path(work), bundle, rows)
                    for concurrency in CONCURRENCY:
                        row: dict[str, Any] = {"framework": framework, "rows": rows, "concurrency": concurrency}
                        for name, port in (("switchyard", ours), ("mlflow", theirs)):
                            _load(port, script, concurrency, 2)
                            row[name] = _load(port, script, concurrency, options.seconds)
                            print(f"{framework}, {rows} rows, {concurrency} clients: {name} {row[name]}", file=sys.stderr)
                        row["throughput_ratio"] = row["switchyard"]["requests_per_s"] / row["mlflow"]["requests_per_s"]
                        row["p99_ratio"] = row["switchyard"]["p99_ms"] / row["mlflow"]["p99_ms"]
                        found.append(row)
    if options.json:
        print(json.dumps({"measured": found, "bare_predict_per_s": ceilings}))
        return
    _print(found, ceilings)


def _print(found: list[dict[str, Any]], ceilings: dict[str, dict[int, float]]) -> None:
    print(f"{'':26}{'switchyard':>24}{'mlflow models serve':>24}{'ratios':>18}")
    print(
        f"{'framework':12}{'rows':>6}{'clients':>8}" + f"{'req/s':>9}{'p99 ms':>9}{'errors':>7}" * 2 + f"{'req/s':>8}{'p99':>8}"
    )
    for row in found:
        sides = "".join(
            f"{s['requests_per_s']:9.0f}{s['p99_ms']:9.1f}{s['errors']:7d}" for s in (row["switchyard"], row["mlflow"])
        )
        print(
            f"{row['framework']:12}{row['rows']:6}{row['concurrency']:8}{sides}{row['throughput_ratio']:8.1f}{row['p99_ratio']:8.2f}"
        )
    for framework, values in ceilings.items():
        print(f"bare predict, {framework}: " + ", ".join(f"{v:.0f}/s with {rows} rows" for rows, v in values.items()))
    print("target at 32 clients: throughput at least 5, p99 at most 0.2, no errors")


def train(work: Path) -> dict[str, Path]:
    """Returns framework -> bundle, from a run of the example in `work/w`."""
    print("training both models", file=sys.stderr)
    command = [sys.executable, "-m", "switchyard", "run", EXAMPLE / "pipeline.yaml", "--workspace", work / "w"]
    command += ["--trainer", "tensorflow", "--trainer", "pytorch"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 4):
        sys.exit(done.stderr)
    models = {}
    for framework in ("tensorflow", "pytorch"):
        [folder] = (work / "w" / "artifacts" / f"training_{framework}" / "model").iterdir()
        models[framework] = folder / "Format-Serving"
    return models


def _script(work: Path, bundle: Path, rows: int) -> Path:
    with open(EXAMPLE / "data.csv", newline="", encoding="utf-8") as file:
        data = list(csv.DictReader(file))[:rows]
    columns = [c for c in data[0] if c != "diagnosis"]
    body = json.dumps({"dataframe_split": {"columns": columns, "data": [[float(r[c]) for c in columns] for r in data]}})
    path = work / f"{bundle.parts[-3]}-{rows}.lua"
    path.write_text(
        f'wrk.method="POST"\nwrk.headers["Content-Type"]="application/json"\nwrk.body=[==[{body}]==]\n', encoding="utf-8"
    )
    return path


def _ceiling(bundle: Path) -> dict[int, float]:
    command = [sys.executable, "-c", _CEILING, str(bundle), str(EXAMPLE / "data.csv"), *map(str, ROWS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {int(a): float(b) for a, b in (line.split() for line in done.stdout.splitlines())}


def _load(port: int, script: Path, concurrency: int, seconds: int) -> dict[str, Any]:
    command = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", "--latency", "--timeout", "20s", "-s", str(script)]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/invocations"], capture_output=True, text=True, check=True)
    value, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s|m)", done.stdout)[0]
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    errors = (int(wrong[1]) if wrong else 0) + (sum(map(int, sockets.groups())) if sockets else 0)
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", done.stdout)[0])
    if errors > 0.5 * rate * seconds:
        sys.exit(f"most requests fail, there is nothing to measure:\n{done.stdout}")
    return {"requests_per_s": rate, "p99_ms": float(value) * _UNITS[unit], "errors": errors}


@contextmanager
def _ours(bundle: Path) -> Iterator[int]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "switchyard",
        "serve",
        str(bundle),
        "--trust",
        "--port",
        str(port),
        "--access-log",
        "off",
    ]
    with server(command, port):
        yield port


@contextmanager
def _mlflow(bundle: Path) -> Iterator[int]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(bundle),
        "--env-manager",
        "local",
        "--port",
        str(port),
    ]
    with server(command, port):
        yield port


@contextmanager
def server(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Yields a server's process once it is ready."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environment()
    )
    try:
        for _ in range(3000):
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).status == 200:
                    break
            except OSError:
                if process.poll() is not None:
                    sys.exit(f"ended with {process.returncode}: {' '.join(command)}")
                time.sleep(0.2)
        else:
            sys.exit(f"not ready after ten minutes: {' '.join(command)}")
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def environment() -> dict[str, str]:
    """Returns the environment variables of the servers."""
    # MLflow finds `uvicorn` by PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", "SWITCHYARD_WARM": "0"}


def free_port() -> int:
    """Returns a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
