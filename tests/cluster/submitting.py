"""A server that executes what is submitted, and what tests ask of the runs there."""

import json
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

from mlflow import MlflowClient

from tests.command import REPOSITORY, environment, free_port, kill_with_children

# One epoch: what is trained is not looked at.
SHORT = ["--set", "trainer.hyperparameters.epochs=1", "--set", "evaluation.thresholds={}", "--set", "evaluation.improvement=null"]


def tracked_by(uri):
    """Returns the options of a submitted run that MLflow at `uri` tracks: the stand-in's tasks are on this machine too."""
    return ["--set", f"tracking.uri={uri}", "--set", f"kubeflow.defaults.environment.MLFLOW_TRACKING_URI={uri}"]


@contextmanager
def kfp_server(folder, mlflow="", *more, scheme="http"):
    port = free_port()
    command = [sys.executable, "-m", "tests.cluster.kfp_server", str(port), str(folder), "--mlflow", mlflow, *map(str, more)]
    folder.mkdir()
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command, cwd=REPOSITORY, env=environment(PYTHONPATH=REPOSITORY), stdout=log, stderr=log)
        try:
            wait_for_port(port)
            yield f"{scheme}://127.0.0.1:{port}"
        finally:
            kill_with_children(server)


def wait_for_port(port):
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"no server listens on {port}")


def nested(mlflow, parent):
    client = MlflowClient(tracking_uri=mlflow)
    experiment = client.get_run(parent).info.experiment_id
    return client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")


def wait_for_end(warm, host, run_id):
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        time.sleep(0.3)
        shown = json.loads(warm("runs", "show", run_id, "--host", host, "--json").stdout)
        if shown["state"] in ("SUCCEEDED", "FAILED", "CANCELED"):
            return shown
    raise AssertionError(f"run {run_id} does not end")
