"""The registry's aliases under races and rollback, over HTTP: a real MLflow server, real processes, and the command."""

import itertools
import json
import os
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from switchyard.components.tracking.model_registry import CHAMPION, PREVIOUS, alias_version, moves, register_model
from tests.command import (
    BREAST_CANCER,
    REPOSITORY,
    environment,
    free_port,
    kill_with_children,
    mlflow_server,
    wait_for,
)
from tests.registries import registry, small_model

RACER = """
import sys
from mlflow import MlflowClient
from switchyard.components.tracking.model_registry import promote
client = MlflowClient(sys.argv[1], sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    for version in sys.argv[2:]:
        try:
            promote(client, "m", version, why="race")
        except Exception as error:
            if "is already the champion" not in str(error):
                raise
"""


def test_concurrent_promotions_leave_one_champion_and_a_correct_history(tmp_path, warm):
    """At every moment there is a champion; afterwards the record, `champion` and `previous` agree."""
    with mlflow_server(tmp_path) as uri:
        client = MlflowClient(uri, uri)
        run_id = client.create_run(client.create_experiment("e")).info.run_id
        for number in range(1, 5):
            register_model(client, run_id, small_model(tmp_path, number, compared_with=None if number == 1 else str(number - 1)))
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACER, uri, *versions],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment(PYTHONPATH=REPOSITORY),
            )
            for versions in (["1", "2"], ["3", "4"])
        ]
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        seen, stop = [], threading.Event()

        def watch():
            while not stop.is_set():
                seen.append(client.get_registered_model("m").aliases.get("champion"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        for racer in racers:
            racer.stdin.write("\n")
            racer.stdin.flush()
        codes = [racer.wait(120) for racer in racers]
        stop.set()
        watcher.join()
        for racer in racers:
            racer.stdin.close()
            racer.stdout.close()
        assert codes == [0, 0]
        assert len(seen) > 5
        assert None not in seen
        history = moves(client, "m")
        assert all(a.version == b.before for a, b in itertools.pairwise(history))
        assert alias_version(client, "m", CHAMPION) == history[-1].version
        assert alias_version(client, "m", PREVIOUS) == history[-1].before
        with pytest.raises(MlflowException):
            client.get_registered_model("m.promotion-lock")
        # The command, over the same server.
        listed = warm("models", "list", "m", "--json", "--tracking-uri", uri)
        assert listed.code == 0, listed.stderr
        assert len(json.loads(listed.stdout)["versions"]) == 4
        assert warm("models", "rollback", "m", "--why", "a test", "--tracking-uri", uri).code == 0
        assert alias_version(client, "m", CHAMPION) == history[-1].before
        missing = warm("models", "promote", "m", "9", "--why", "x", "--tracking-uri", uri)
        assert missing.code == 2
        assert "m has no version or alias '9'. Versions: 1" in missing.stderr
    assert os.environ.get("MLFLOW_TRACKING_URI") is None


def test_an_mlflow_server_answers_consistently_during_a_rollback(bundles, tmp_path, warm):
    uri, client = registry(tmp_path, "breast_cancer", [(f, bundles[f]) for f in ("tensorflow", "pytorch")])
    before = {alias: alias_version(client, "breast_cancer", alias) for alias in (CHAMPION, PREVIOUS)}
    rows = pd.read_csv(BREAST_CANCER.parent / "data.csv").drop(columns="diagnosis").head(3)
    body = json.dumps({"dataframe_split": rows.to_dict("split")}).encode()
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/breast_cancer@champion",
        "--env-manager",
        "local",
    ]
    # MLflow starts `uvicorn` by its name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)], env=environment(MLFLOW_TRACKING_URI=uri, PATH=path), stdout=log, stderr=log
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/ping")
            asked = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}, method="POST"
            )
            first = json.load(urllib.request.urlopen(asked, timeout=60))
            done = warm("models", "rollback", "breast_cancer", "--why", "a test", "--tracking-uri", uri)
            assert done.code == 0, done.stderr
            assert json.load(urllib.request.urlopen(asked, timeout=60)) == first
        finally:
            kill_with_children(server)
    assert alias_version(client, "breast_cancer", CHAMPION) == before[PREVIOUS]
    assert alias_version(client, "breast_cancer", PREVIOUS) == before[CHAMPION]
    assert moves(client, "breast_cancer")[-1].why == "a test"
    back = warm("models", "rollback", "breast_cancer", "--why", "back", "--tracking-uri", uri)
    assert f"version {before[CHAMPION]} is champion" in back.stdout
