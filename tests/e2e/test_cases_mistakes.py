"""Folders with awkward names, users without an account, an MLflow that refuses, a library that does not load."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from switchyard.components.text.escaping import sqlite_uri
from tests.command import COMMAND, REPOSITORY, environment, mlflow_server, switchyard
from tests.refusing_server import refusing_proxy

YAML = "name: odd_folder\ndata: {path: d*.csv}\nlabel: y\ntrainer: {framework: pytorch, hyperparameters: {epochs: 5}}\n"
WITHOUT_CONTEST = ["--set", "evaluation.improvement=null"]


def case(folder):
    """300 rows of which the first column tells the label, and a text that tells nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20)
    a, b = rng.normal(size=300), rng.normal(size=300)
    y = (rng.random(300) < 1 / (1 + np.exp(-3 * a))).astype(int)
    cities = rng.choice(["Ulm", "Bonn", "Kiel"], 300)
    pd.DataFrame({"a": a.round(4), "b": b.round(4), "city": cities, "y": y}).to_csv(folder / "d.csv", index=False)
    (folder / "pipeline.yaml").write_text(YAML)
    return folder


def test_a_run_in_a_folder_of_any_name_stays_in_it(tmp_path):
    name = "folder [v1] a%20b?c#1 'q\" ü@h*"
    folder = case(tmp_path / "outer" / name)
    done = switchyard(
        "run", folder / "pipeline.yaml", "--json", "--trainer", "pytorch", "--trainer", "tensorflow", *WITHOUT_CONTEST
    )
    assert done.code == 0, done.stderr
    assert done.json["champion"] == done.json["model_version"]
    predicted = switchyard(
        *("predict", "odd_folder@champion", folder / "d.csv", "-o", folder / "out.csv", "--workspace", folder / ".switchyard")
    )
    assert predicted.code == 0, predicted.stderr
    assert len(pd.read_csv(folder / "out.csv")) == 300
    again = switchyard("run", folder / "pipeline.yaml", "--json", *WITHOUT_CONTEST, "--even-if-unchanged")
    assert {again.stages[s] for s in ("ingest", "statistics", "transform")} == {"cached"}
    assert [p.name for p in (tmp_path / "outer").iterdir()] == [name]
    client = MlflowClient(sqlite_uri(folder / ".switchyard" / "mlflow.db"))
    location = client.get_experiment_by_name("odd_folder").artifact_location
    assert location == (folder / ".switchyard" / "mlflow").as_uri()


@pytest.fixture
def open_to_all():
    """pytest's own folders are root's alone."""
    with tempfile.TemporaryDirectory(prefix="open to all ") as folder:
        yield Path(folder)


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv (util-linux), to be another user"
)
def test_a_user_without_account_name_and_home_runs_a_pipeline(open_to_all):
    folder = case(open_to_all / "project")
    for path in (open_to_all, folder, *folder.iterdir()):
        path.chmod(0o777)
    # It may read what only root may, as the interpreter may lie in root's home.
    rights = ["--inh-caps", "+dac_override,+dac_read_search", "--ambient-caps", "+dac_override,+dac_read_search"]
    account = ["setpriv", "--reuid", "12345", "--regid", "0", "--clear-groups", *rights]
    variables = ["env", "-i", f"PATH={os.environ['PATH']}", f"PYTHONPATH={REPOSITORY}", f"TMPDIR={open_to_all}"]
    command = [*account, *variables, *COMMAND, "run", folder / "pipeline.yaml", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "blessed"


def test_a_library_that_fails_to_load_is_named(tmp_path):
    folder = case(tmp_path / "project")
    broken = tmp_path / "libraries" / "IPython"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('Could not determine home directory.')\n")
    done = subprocess.run(
        [*COMMAND, "run", folder / "pipeline.yaml"],
        cwd=folder,
        env=environment(PYTHONPATH=f"{REPOSITORY}{os.pathsep}{broken.parent}"),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 1
    assert "Aborted" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "has ended: RuntimeError: Could not determine home directory. Log: " in done.stderr
    assert "preload.log" in done.stderr


def test_a_model_that_mlflow_refuses_fails_the_run_and_is_registered_later(tmp_path, warm):
    folder = case(tmp_path / "project")
    refusing = [True]

    def refuses(method, path):
        return (
            403 if refusing[0] and method == "POST" and path.endswith(("/logged-models", "/registered-models/create")) else None
        )

    (tmp_path / "server").mkdir()
    with mlflow_server(tmp_path / "server") as server, refusing_proxy(refuses, server) as uri:
        done = switchyard("run", folder / "pipeline.yaml", "--json", env={"MLFLOW_TRACKING_URI": uri})
        assert done.code == 2, done.stderr
        assert done.json["status"] == "not_registered"
        assert "denies access" in done.json["error"]
        assert "is unreachable" not in done.stderr
        assert "MLflow refused a part of the run's record" in done.stderr
        assert MlflowClient(server).search_registered_models() == []
        refusing[0] = False
        sent = warm("upload", folder / "pipeline.yaml", env={"MLFLOW_TRACKING_URI": uri})
        assert sent.code == 0, sent.stderr
        assert MlflowClient(server).get_model_version_by_alias("odd_folder", "champion").version == "1"


def test_a_server_that_refuses_every_request_stops_a_run_before_training(tmp_path):
    folder = case(tmp_path / "project")
    with refusing_proxy(lambda method, path: 401) as uri:
        done = switchyard("run", folder / "pipeline.yaml", env={"MLFLOW_TRACKING_URI": uri})
    assert done.code == 2
    assert "denies access" in done.stderr
    assert "ingest: running" not in done.stderr
    assert sys.executable not in done.stderr
