"""Models that evaluation finds good and that cannot be served are never promoted, and the run says why."""

import json
import os
import signal
import time

import psutil
from mlflow import MlflowClient

from tests.command import BREAST_CANCER, REPOSITORY, SKLEARN, lines_until, start

UNSERVABLE = REPOSITORY / "tests" / "contract" / "unservable_trainers.py"
FORGETFUL, MOODY = f"{UNSERVABLE}:ForgetfulTrainer", f"{UNSERVABLE}:MoodyTrainer"
QUICK = ["--set", "trainer.hyperparameters.epochs=3"]


def test_the_best_servable_model_is_promoted(warm, tmp_path):
    """Three candidates with the same metrics: one does not load in a server, one answers otherwise there."""
    trainers = [a for t in (FORGETFUL, MOODY, f"{SKLEARN}:SklearnTrainer") for a in ("--trainer", t)]
    done = warm.run(BREAST_CANCER, tmp_path, *trainers, *QUICK)
    models = done.json["models"]
    assert done.json["trainer"] == "sklearn"
    assert {n for n, m in models.items() if m["blessed"]} == {n for n, m in models.items() if m["passed"]} == {"sklearn"}
    assert "cannot be served: model cannot be served: KeyError: 'SWITCHYARD_STAGE'" in models["forgetful"]["failures"][0]
    assert "its score of a row changes by up to 0.000" in models["moody"]["failures"][0]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    [version] = client.search_model_versions("name = 'breast_cancer'")
    assert version.tags["framework"] == "sklearn"
    assert done.json["champion"] == str(version.version)
    run = client.get_run(done.json["mlflow_run_id"])
    assert run.data.tags["blessed"] == "true"
    [stage] = client.search_runs([run.info.experiment_id], "tags.mlflow.runName = 'infra_validation'")
    assert stage.data.metrics["serving.sklearn.difference"] <= 1e-5
    assert stage.data.metrics["serving.sklearn.latency_p99_batch_1_ms"] > 0
    assert stage.data.tags["infra_blessed"] == "false"
    assert "SWITCHYARD_STAGE" in stage.data.tags["forgetful.cannot_be_served"]
    found = json.load(open(client.download_artifacts(stage.info.run_id, "infra_validation/infra_validation.json")))
    assert found["sklearn"]["rows"] == 101
    page = open(client.download_artifacts(run.info.run_id, "report/report.html")).read()
    assert "Infra validation" in page
    assert "forgetful cannot be served" in page


def test_a_model_that_cannot_be_served_is_not_blessed(warm, tmp_path):
    done = warm.run(BREAST_CANCER, tmp_path, "--trainer", MOODY, *QUICK, expect=4)
    assert done.json["status"] == "not_blessed"
    assert done.json["model_version"] is None
    assert "cannot be served: its score of a row changes by up to 0.000" in done.json["error"]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    tags = client.get_run(done.json["mlflow_run_id"]).data.tags
    assert tags["blessed"] == "false"
    assert "cannot be served" in tags["switchyard.why"]
    # Who does not want to know.
    done = warm.run(BREAST_CANCER, tmp_path, "--trainer", MOODY, *QUICK, "--set", "serving.infra_validation=null")
    assert "infra_validation" not in done.stages
    assert done.json["model_version"] == "1"


def test_the_validation_server_ends_with_a_killed_run(tmp_path):
    process = start("run", BREAST_CANCER, "--workspace", tmp_path, "--trainer", f"{SKLEARN}:SklearnTrainer", *QUICK)
    try:
        lines_until(process, "infra_validation: running")
        server = _server()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    deadline = time.monotonic() + 60
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the server outlives its run"
        time.sleep(0.2)


def _server():
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for each in psutil.process_iter(["cmdline"]):
            if "switchyard.components.infra_validation.server_main" in (each.info["cmdline"] or []):
                return each
        time.sleep(0.05)
    raise AssertionError("no server was started")
