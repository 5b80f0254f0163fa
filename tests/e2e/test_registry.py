"""The registry's aliases under promotion, rollback and races: a real MLflow server, real processes, and the command."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from components import model_registry, tracking
from components.errors import UserError
from components.model_registry import CHALLENGER, CHAMPION, PREVIOUS, alias_version, moves, promote, register_model, rollback
from tests.command import (
    BREAST_CANCER,
    REPOSITORY,
    environment,
    free_port,
    kill_with_children,
    mlflow_server,
    switchyard,
    wait_for,
)

pytestmark = pytest.mark.e2e


def bundle(folder, number):
    path = folder / f"bundle{number}"
    path.mkdir()
    (path / "MLmodel").write_text(f"artifact_path: model\nflavors: {{}}\nnumber: {number}\n")
    return path


def described(folder, number, **changes):
    return {
        "name": "m",
        "bundle": str(bundle(folder, number)),
        "uri": f"artifact-{number}",
        "passed": True,
        "blessed": True,
        "compared_with": None,
        "why": "better",
        "metrics": {"auc": 0.9},
        "data": "fingerprint",
        "tags": {"framework": "pytorch"},
        "description": "",
        **changes,
    }


@pytest.fixture
def client(tmp_path):
    return MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}", f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture
def run_id(client, tmp_path):
    experiment = client.create_experiment("e", artifact_location=(tmp_path / "files").as_uri())
    return client.create_run(experiment).info.run_id


def test_promotion_and_rollback_are_recorded(client, run_id, tmp_path):
    first = register_model(client, run_id, described(tmp_path, 1))
    assert (first.status, first.version) == ("champion", "1")
    second = register_model(client, run_id, described(tmp_path, 2, compared_with="1", why="auc +0.1"))
    assert (second.status, alias_version(client, "m", PREVIOUS)) == ("champion", "1")
    back = rollback(client, "m", why="it is slow")
    assert (back.version, back.before) == ("1", "2")
    assert (alias_version(client, "m", CHAMPION), alias_version(client, "m", PREVIOUS)) == ("1", "2")
    history = [(m.action, m.before, m.version, m.why, m.run_id) for m in moves(client, "m")]
    assert history == [
        ("promote", None, "1", "better", run_id),
        ("promote", "1", "2", "auc +0.1", run_id),
        ("rollback", "2", "1", "it is slow", run_id),
    ]
    assert all(m.who and m.at and m.metrics == {"auc": 0.9} for m in moves(client, "m"))


def test_the_same_bundle_is_one_version(client, run_id, tmp_path):
    model = described(tmp_path, 1)
    assert register_model(client, run_id, model).version == "1"
    again = register_model(client, run_id, {**model, "compared_with": "1"})
    assert (again.status, again.version) == ("champion", "1")
    assert len(moves(client, "m")) == 1


def test_a_blessing_holds_against_the_champion_it_was_compared_with(client, run_id, tmp_path):
    for number, compared in ((1, None), (2, "1")):
        register_model(client, run_id, described(tmp_path, number, compared_with=compared))
    late = register_model(client, run_id, described(tmp_path, 3, compared_with="1"))
    assert (late.status, late.champion) == ("challenger", "2")
    assert "was version 1 when it was evaluated and is 2 now; run again" in late.why
    assert alias_version(client, "m", CHALLENGER) == "3"


def test_what_did_not_pass_is_no_version_and_what_is_not_blessed_is_no_champion(client, run_id, tmp_path):
    assert register_model(client, run_id, described(tmp_path, 1, passed=False, blessed=False)).version is None
    kept = register_model(client, run_id, described(tmp_path, 2, blessed=False))
    assert (kept.status, kept.champion) == ("challenger", None)
    with pytest.raises(UserError, match="was not blessed"):
        promote(client, "m", kept.version, why="I like it")
    assert promote(client, "m", kept.version, why="I like it", force=True).version == kept.version
    assert alias_version(client, "m", CHALLENGER) is None
    with pytest.raises(UserError, match="nothing to go back to"):
        rollback(client, "m", why="no")


def test_a_lock_left_by_a_kill_is_broken(client, run_id, tmp_path, monkeypatch):
    register_model(client, run_id, described(tmp_path, 1))
    client.create_registered_model("m.promotion-lock")
    monkeypatch.setattr(model_registry, "_STALE_SECONDS", 0.5)
    started = time.monotonic()
    register_model(client, run_id, described(tmp_path, 2, compared_with="1"))
    assert time.monotonic() - started > 0.4
    assert alias_version(client, "m", CHAMPION) == "2"


def test_a_lock_released_while_mlflow_looks_at_it_with_a_mocked_answer(client, run_id, tmp_path, monkeypatch):
    """MLflow 3.17's store finds the name taken, reads who has it, and finds nothing: 60 of 2,400 times with four processes."""
    create, answers = client.create_registered_model, [MlflowException("not found", RESOURCE_DOES_NOT_EXIST)]

    def made(name, **more):
        if name == "m.promotion-lock" and answers:
            raise answers.pop()
        return create(name, **more)

    monkeypatch.setattr(client, "create_registered_model", made)
    assert register_model(client, run_id, described(tmp_path, 1)).status == CHAMPION
    assert answers == []


def test_a_server_that_is_away_is_not_taken_for_an_empty_one():
    with pytest.raises(MlflowException, match="Connection refused"):
        alias_version(tracking.client("http://127.0.0.1:9"), "m", CHAMPION)


RACER = """
import sys
from mlflow import MlflowClient
from components.model_registry import promote
client = MlflowClient(sys.argv[1], sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    for version in sys.argv[2:]:
        try:
            promote(client, "m", version, why="race")
        except Exception as error:
            if "is the champion already" not in str(error):
                raise
"""


def test_two_promotions_racing_over_http(tmp_path):
    """At every moment there is a champion; afterwards the record, `champion` and `previous` agree."""
    with mlflow_server(tmp_path) as uri:
        client = MlflowClient(uri, uri)
        run_id = client.create_run(client.create_experiment("e")).info.run_id
        for number in range(1, 5):
            register_model(client, run_id, described(tmp_path, number, compared_with=None if number == 1 else str(number - 1)))
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
        listed = switchyard("models", "list", "m", "--json", "--tracking-uri", uri)
        assert listed.code == 0, listed.stderr
        assert len(json.loads(listed.stdout)["versions"]) == 4
        assert switchyard("models", "rollback", "m", "--why", "a test", "--tracking-uri", uri).code == 0
        assert alias_version(client, "m", CHAMPION) == history[-1].before
        missing = switchyard("models", "promote", "m", "9", "--why", "x", "--tracking-uri", uri)
        assert missing.code == 2
        assert "m has no version or alias '9'. Versions: 1" in missing.stderr
    assert os.environ.get("MLFLOW_TRACKING_URI") is None


def test_rollback_while_a_server_holds_the_model(runs, workspace, tmp_path):
    """MLflow's own scoring server loads `@champion`; the champion moves under it, and both go on as they were."""
    uri = f"sqlite:///{workspace / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
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
            done = switchyard("models", "rollback", "breast_cancer", "--why", "a test", "--workspace", workspace)
            assert done.code == 0, done.stderr
            assert json.load(urllib.request.urlopen(asked, timeout=60)) == first
        finally:
            kill_with_children(server)
    assert alias_version(client, "breast_cancer", CHAMPION) == before[PREVIOUS]
    assert alias_version(client, "breast_cancer", PREVIOUS) == before[CHAMPION]
    assert moves(client, "breast_cancer")[-1].why == "a test"
    back = switchyard("models", "rollback", "breast_cancer", "--why", "back", "--workspace", workspace)
    assert f"version {before[CHAMPION]} is champion" in back.stdout
