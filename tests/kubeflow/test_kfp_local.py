"""The compiled pipeline by KFP's own local runner: the same evaluation as the local runner, cached, tracked, failing alike."""

import json
from dataclasses import asdict

import pytest
import yaml
from mlflow import MlflowClient

from tests.command import ANEW, BREAST_CANCER, NO_CONTEST, STAGES, Finished
from tests.plugins.made_once import made_once
from tests.tuning.test_tuning import RATES, bowl, children, stage_run

BOTH = ["--trainer", "tensorflow", "--trainer", "pytorch"]
# In one process with the tests of `runs`, with which the first test compares: in another one it would wait for them.
compares_with_runs = pytest.mark.xdist_group("trained")


def last(done):
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
@made_once
def compiled(warm, make_once):
    """The workspace and the run of both trainers in one."""
    arguments = ["--runner", "kfp-local", *BOTH, *NO_CONTEST]
    folder, done = make_once("kfp local", lambda workspace: asdict(warm.run(BREAST_CANCER, workspace, *arguments)))
    return folder, Finished(**done)


@compares_with_runs
@pytest.mark.core
def test_kfp_local_evaluates_as_the_local_runner_does(compiled, runs):
    models = last(compiled[1])["models"]
    for trainer in ("tensorflow", "pytorch"):
        assert models[trainer]["metrics"] == pytest.approx(last(runs[trainer])["metrics"], abs=1e-6), trainer


@compares_with_runs
@pytest.mark.core
def test_kfp_local_runs_what_is_compiled(compiled):
    workspace, _ = compiled
    (found,) = workspace.glob("logs/*/kfp.yaml")
    spec = next(yaml.safe_load_all(found.read_text()))
    assert list(spec["root"]["dag"]["tasks"]) == [
        "baseline-then-data-gate",
        "drive-ingest",
        "evaluation-then-infra-validation-then-registry-then-report",
        "ingest-then-schema-then-statistics-then-validation",
        "training-pytorch",
        "training-tensorflow",
        "transform",
    ]
    assert spec["schemaVersion"] == "2.1.0"


@compares_with_runs
def test_a_second_identical_run_is_cached(compiled, warm):
    workspace, _ = compiled
    again = last(warm.run(BREAST_CANCER, workspace, "--runner", "kfp-local", *BOTH, *NO_CONTEST))
    ran = {stage for stage, result in again["stages"].items() if result["status"] == "ran"}
    # The models' servers share a task with what runs every time.
    assert ran == ANEW | {"infra_validation"}
    assert set(again["stages"]) == set(STAGES) - {"training"} | {"training_tensorflow", "training_pytorch"}


@compares_with_runs
@pytest.mark.core
def test_stages_have_kfps_views(compiled):
    workspace, _ = compiled
    pages = {p.name: p for p in (workspace / "kubeflow").rglob("*_html")}
    assert {"statistics_html", "report_html"} <= set(pages)
    assert "No anomalies" in next((workspace / "kubeflow").rglob("anomalies_markdown")).read_text()


def test_large_data_bypasses_kfp(compiled, warm, tmp_path, runs):
    """`data_root`: KFP carries a pointer, the stages read and write the place itself."""
    root = tmp_path / "bucket"
    arguments = ["--runner", "kfp-local", "--set", f"kubeflow.data_root={root}", *NO_CONTEST]
    found = last(warm.run(BREAST_CANCER, tmp_path / "w", *arguments))
    assert found["metrics"] == pytest.approx(last(runs["tensorflow"])["metrics"], abs=1e-6)
    places = {p.parent.parent.name for p in root.rglob("Split-eval")}
    assert len(list(root.rglob("Split-train"))) == 2, "of ingest and of transform"
    assert places
    for name in ("examples", "transformed_examples"):
        (carried,) = (p for p in (tmp_path / "w" / "kubeflow").rglob(name) if p.is_dir())
        assert [p.name for p in carried.iterdir()] == ["URI"]


def test_the_data_gate_stops_a_compiled_pipeline(warm, tmp_path):
    rows = (BREAST_CANCER.parent / "data.csv").read_text().replace("mean_radius", "radius_mean", 1)
    (tmp_path / "data.csv").write_text(rows)
    arguments = ["--runner", "kfp-local", "--set", f"data.path={tmp_path / 'data.csv'}"]
    stopped = warm.run(BREAST_CANCER, tmp_path / "w", *arguments, expect=3)
    found = last(stopped)
    assert found["status"] == "stopped_by_data_gate"
    assert "mean_radius" in found["error"]
    assert "transform" not in found["stages"]
    assert {s: r["status"] for s, r in found["stages"].items() if s in ("baseline", "data_gate")} == {
        "baseline": "ran",
        "data_gate": "failed",
    }, "of one task"
    client = MlflowClient(f"sqlite:///{tmp_path / 'w' / 'mlflow.db'}")
    named = [r.info.run_name for r in children(client, found["mlflow_experiment_id"], found["mlflow_run_id"])]
    assert sorted(named) == ["baseline", "data_gate", "ingest", "schema", "statistics", "validation"]


def test_failing_user_code_is_reported(warm, tmp_path):
    (tmp_path / "model.py").write_text("def build_model(spec):\n    raise ValueError('no such luck')\n")
    arguments = ["--runner", "kfp-local", "--set", f"trainer.model={tmp_path / 'model.py'}"]
    failed = last(warm.run(BREAST_CANCER, tmp_path / "w", *arguments, expect=2))
    assert "no such luck" in failed["error"]
    assert failed["stages"]["training"]["status"] == "failed"


def test_a_retry_that_succeeds_is_no_failure(warm, tmp_path):
    """The stage's code fails once; KFP tries again."""
    (tmp_path / "model.py").write_text(
        "from pathlib import Path\n"
        "from switchyard.components.training.tensorflow.trainer import default_model\n\n\n"
        "def build_model(spec):\n"
        f"    seen = Path({str(tmp_path / 'seen')!r})\n"
        "    if not seen.exists():\n"
        "        seen.touch()\n"
        "        raise ValueError('only once')\n"
        "    return default_model(spec)\n"
    )
    arguments = ["--runner", "kfp-local", "--set", f"trainer.model={tmp_path / 'model.py'}", *NO_CONTEST]
    retries = ["--set", "kubeflow.stages.training.retries={count: 1, backoff: 1s}", "--set", "evaluation.thresholds={}"]
    found = last(warm.run(BREAST_CANCER, tmp_path / "w", *arguments, *retries, "--set", "trainer.hyperparameters.epochs=1"))
    assert found["status"] == "blessed"
    assert (tmp_path / "seen").exists()


def test_a_compiled_search_hands_its_best_values_to_training(warm, tmp_path):
    """The stage before training, with its trials in processes of the task's own; what it found is KFP's artifact."""
    tune = {"space": {"learning_rate": RATES}, "trials": 6, "parallel": 2}
    done = warm.run(bowl(tmp_path, tune, hyperparameters={"epochs": 3}), tmp_path / "w", "--runner", "kfp-local")
    client = MlflowClient(f"sqlite:///{tmp_path / 'w' / 'mlflow.db'}")
    found = last(done)
    stages = {s: stage_run(client, found, s) for s in ("tuning", "training")}
    tuning = stages["tuning"]
    assert len(children(client, tuning.info.experiment_id, tuning.info.run_id)) == 6
    assert stages["training"].data.params["learning_rate"] == tuning.data.tags["best.learning_rate"]
