"""Loads `switchyard serve` for ten minutes while the champion changes every 20 s; reports failed requests, wrong answers, memory.

python benchmarks/serving_soak.py [--seconds 600] [--every 20] [--clients 8]

Every answer is compared with the offline prediction of the version it names. The exit code is 1 when a request failed, an answer
was wrong, or the champion did not change in time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from serving import EXAMPLE, ROOT, environment, free_port, server, train

NAME = "breast_cancer"
TOLERANCE = 1e-5


def main() -> None:
    """Runs the test and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--every", type=int, default=20, help="seconds from one change of the champion to the next")
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        models = train(Path(work))
        workspace = Path(work) / "w"
        right = _expected(models, workspace)
        port = free_port()
        command = [sys.executable, "-m", "switchyard", "serve", f"{NAME}@champion", "--workspace", str(workspace)]
        command += ["--port", str(port), "--poll", "1", "--access-log", "off"]
        with server(command, port) as process:
            found = _soak(port, process.pid, right, workspace, options)
    print(json.dumps(found, indent=1))
    sys.exit(0 if not (found["failed"] or found["wrong"] or found["changes_not_seen"]) else 1)


def _rows() -> pd.DataFrame:
    return pd.read_csv(EXAMPLE / "data.csv").drop(columns="diagnosis")


def _expected(models: dict[str, Path], workspace: Path) -> dict[str, np.ndarray]:
    """Returns version -> probability of each row, computed offline by the bundles."""
    from mlflow import MlflowClient

    from switchyard.components.bundle.model import load_bundle
    from switchyard.components.import_order import import_torch_first

    import_torch_first()
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    rows = _rows()
    return {
        str(v.version): load_bundle(models[v.tags["framework"]]).predict(rows)["probability"].to_numpy()
        for v in client.search_model_versions(f"name = '{NAME}'")
    }


def _soak(port: int, pid: int, right: dict[str, np.ndarray], workspace: Path, options: Any) -> dict[str, Any]:
    over = threading.Event()
    clients = [_Client(port, right, over, i, options.clients) for i in range(options.clients)]
    for each in clients:
        each.start()
    memory: list[float] = []
    began, changes, unseen, wanted = time.monotonic(), 0, 0, ""
    while (passed := time.monotonic() - began) < options.seconds:
        memory.append(psutil.Process(pid).memory_info().rss / 2**20)
        if passed > (changes + 1) * options.every:
            if wanted and clients[0].version != wanted:
                unseen += 1
            wanted = _change(workspace, right, first=changes == 0)
            changes += 1
            print(f"{passed:4.0f} s: champion is version {wanted}, {memory[-1]:.0f} MiB", file=sys.stderr)
        time.sleep(1)
    over.set()
    for each in clients:
        each.join()
    kinds = sum((each.kinds for each in clients), Counter[str]())
    milliseconds = np.concatenate([each.milliseconds for each in clients])
    third = max(1, len(memory) // 3)
    return {
        "seconds": options.seconds,
        "requests": len(milliseconds),
        "failed": kinds["failed"],
        "wrong": kinds["wrong"],
        "answers_by_version": {v: kinds[f"version {v}"] for v in right},
        "changes": changes,
        "changes_not_seen": unseen,
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 1),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 1),
        "max_ms": round(float(milliseconds.max()), 1),
        "memory_mib_by_third": [round(float(np.median(memory[i : i + third]))) for i in (0, third, 2 * third) if memory[i:]],
        "first_failures": [f for each in clients for f in each.failures][:5],
    }


def _change(workspace: Path, right: dict[str, np.ndarray], *, first: bool) -> str:
    """Promotes the other version, or rolls back, with the public commands; returns the champion."""
    base = [sys.executable, "-m", "switchyard", "models"]
    where = ["--workspace", str(workspace)]
    before = _champion(workspace)
    if first:
        [other] = right.keys() - {before}
        command = [*base, "promote", NAME, other, "--force", "--why", "soak", *where]
    else:
        command = [*base, "rollback", NAME, "--why", "soak", *where]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
    return _champion(workspace)


def _champion(workspace: Path) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    return str(client.get_model_version_by_alias(NAME, "champion").version)


class _Client(threading.Thread):
    """Client that requests one row after the other over one connection."""

    def __init__(self, port: int, right: dict[str, np.ndarray], over: threading.Event, first: int, step: int) -> None:
        super().__init__(daemon=True)
        rows = _rows()
        self._bodies = [
            json.dumps(
                {"inputs": [{"name": n, "shape": [1], "datatype": "FP64", "data": [float(v)]} for n, v in rows.iloc[i].items()]}
            )
            for i in range(len(rows))
        ]
        self._port, self._right, self._over, self._next, self._step = port, right, over, first, step
        self.kinds: Counter[str] = Counter()
        self.milliseconds: list[float] = []
        self.failures: list[str] = []
        self.version = ""

    def run(self) -> None:
        """Sends requests until the test ends."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._over.is_set():
            self._next = (self._next + self._step) % len(self._bodies)
            began = time.perf_counter()
            try:
                connection.request("POST", f"/v2/models/{NAME}/infer", self._bodies[self._next])
                response = connection.getresponse()
                body = response.read()
                failure = "" if response.status == http.client.OK else f"{response.status}: {body[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failure = repr(error)
            self.milliseconds.append((time.perf_counter() - began) * 1000)
            if failure:
                self.kinds["failed"] += 1
                self.failures.append(failure)
            else:
                self._judge(json.loads(body))

    def _judge(self, answer: dict[str, Any]) -> None:
        self.version = answer["model_version"]
        self.kinds[f"version {self.version}"] += 1
        [probability] = next(o["data"] for o in answer["outputs"] if o["name"] == "probability")
        if not abs(probability - self._right[self.version][self._next]) <= TOLERANCE:
            self.kinds["wrong"] += 1
            self.failures.append(f"version {self.version}, row {self._next}: {probability}")


if __name__ == "__main__":
    main()
