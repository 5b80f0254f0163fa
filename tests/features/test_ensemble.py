"""An ensemble of three frameworks: weights from the eval split, judged, served, promoted and predicted like any candidate."""

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from benchmarks.by_hand.data import write
from switchyard.components.bundle.model import bundle_info, load_bundle
from switchyard.components.serving.client import tensors
from tests.command import BREAST_CANCER, NO_CONTEST
from tests.serving.server import serving

MEMBERS = ("tensorflow", "pytorch", "lightgbm")
TRAINERS = [part for name in (*MEMBERS, "ensemble") for part in ("--trainer", name)]
SMALL = ["--set", "trainer.hyperparameters.epochs=5", "--set", "trainer.trees.rounds=30"]


@pytest.fixture(scope="module")
def combined(warm, tmp_path_factory):
    """The workspace and the run of three trainers and their ensemble."""
    workspace = tmp_path_factory.mktemp("ensemble") / "w"
    return workspace, warm.run(BREAST_CANCER, workspace, *TRAINERS, *SMALL, *NO_CONTEST)


def bundle(workspace, stage, number=0):
    folders = sorted((workspace / "artifacts" / stage / "model").iterdir(), key=lambda f: int(f.name))
    return folders[number] / "Format-Serving"


def weights_of(folder):
    return {member.name: member.weight for member in bundle_info(folder).members}


@pytest.fixture(scope="module")
def rows():
    return pd.read_csv(BREAST_CANCER.parent / "data.csv").drop(columns="diagnosis")


@pytest.fixture(scope="module")
def wanted(combined, rows):
    """The weighted mean of the members' own scores."""
    workspace, _ = combined
    weights = weights_of(bundle(workspace, "ensemble"))
    return sum(w * load_bundle(bundle(workspace, f"training_{name}")).scores(rows).astype(float) for name, w in weights.items())


def test_it_is_a_candidate_beside_its_members(combined):
    workspace, done = combined
    models = done.json["models"]
    assert sorted(models) == sorted((*MEMBERS, "ensemble"))
    assert done.stages["ensemble"] == "ran"
    assert all(set(m["metrics"]) == set(models["tensorflow"]["metrics"]) for m in models.values())
    assert models["ensemble"]["metrics"]["auc"] > 0.97
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    [version] = [v for v in client.search_model_versions("name='breast_cancer'") if v.tags["framework"] == "ensemble"]
    assert all(name in version.tags["members"] for name in MEMBERS)
    assert "Weighted mean of the predictions of" in version.description


def test_its_weights_are_those_of_the_bundle_in_mlflow_and_in_the_report(combined):
    workspace, done = combined
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    parent = f"tags.mlflow.parentRunId = '{done.json['mlflow_run_id']}'"
    runs = {r.info.run_name: r.data for r in client.search_runs([done.json["mlflow_experiment_id"]], parent)}
    found, weights = runs["ensemble"], weights_of(bundle(workspace, "ensemble"))
    assert found.params["members"] == ", ".join(MEMBERS)
    logged = {name: float(found.params[f"weight.{name}"]) for name in MEMBERS}
    assert {n: w for n, w in logged.items() if w} == pytest.approx(weights)
    assert sum(weights.values()) == pytest.approx(1)
    assert found.metrics["val_loss"] <= min(found.metrics[f"val_loss.{name}"] for name in MEMBERS)
    [report] = (workspace / "artifacts" / "report" / "report").glob("*/report.html")
    assert f"ensemble: {logged['tensorflow']:.4f} tensorflow" in report.read_text()


def test_its_scores_are_the_weighted_mean_of_its_members(combined, rows, wanted):
    found = load_bundle(bundle(combined[0], "ensemble"))
    np.testing.assert_allclose(found.scores(rows), wanted, atol=1e-6)
    as_mlflow = mlflow.pyfunc.load_model(str(bundle(combined[0], "ensemble"))).predict(rows)
    np.testing.assert_allclose(as_mlflow["probability"], wanted[:, 0], atol=1e-6)
    requirements = (bundle(combined[0], "ensemble") / "requirements.txt").read_text()
    assert all(f"{package}==" in requirements for package in ("tensorflow", "torch", "lightgbm"))


def test_it_predicts_files_and_is_served(combined, rows, wanted, warm, tmp_path):
    folder = bundle(combined[0], "ensemble")
    done = warm("predict", folder, BREAST_CANCER.parent / "data.csv", "-o", tmp_path / "scores.csv", "--trust")
    assert done.code == 0, done.stderr
    np.testing.assert_allclose(pd.read_csv(tmp_path / "scores.csv")["probability"], wanted[:, 0], atol=1e-6)
    with serving(folder, tmp_path / "log", name="m") as server:
        status, _, answer = server.infer(tensors(rows, bundle_info(folder).features))
        assert status == 200, answer
        served = {output["name"]: output["data"] for output in answer["outputs"]}["probability"]
        np.testing.assert_allclose(served, wanted[:, 0], atol=1e-6)


def test_a_changed_member_makes_another_ensemble_which_is_compared_with_the_champion(combined, warm):
    workspace, first = combined
    name = "breast_cancer"
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    [version] = [v.version for v in client.search_model_versions(f"name='{name}'") if v.tags["framework"] == "ensemble"]
    moved = warm("models", "promote", name, version, "--why", "a test", "--force", "--workspace", workspace)
    assert moved.code == 0, moved.stderr
    start = ["--set", "trainer.start_from={pytorch: champion}", "--set", "trainer.trees.rounds=20"]
    done = warm("run", BREAST_CANCER, "--workspace", workspace, "--json", *TRAINERS, *SMALL[:2], *start)
    assert done.code in (0, 4), done.stderr
    assert done.stages["training_tensorflow"] == "cached"
    assert [done.stages[f"training_{n}"] for n in ("pytorch", "lightgbm")] == ["ran", "ran"]
    assert done.stages["ensemble"] == "ran"
    champion = done.json["models"]["champion"]
    assert champion["framework"] == "ensemble"
    assert champion["metrics"] == pytest.approx(first.json["models"]["ensemble"]["metrics"], abs=1e-6)


def test_kubeflows_local_runner_makes_the_same_ensemble_of_quantiles(warm, tmp_path):
    document = {"name": "stay", "task": "quantile", "label": "y", "data": {"splits": write("quantile", tmp_path)}}
    path = tmp_path / "pipeline.yaml"
    path.write_text(json.dumps(document))
    trainers = [part for name in ("tensorflow", "pytorch", "ensemble") for part in ("--trainer", name)]
    settings = ["--set", "trainer.hyperparameters.epochs=2", *NO_CONTEST]
    here = warm.run(path, tmp_path / "w", *trainers, *settings).json
    there = warm.run(path, tmp_path / "kfp", "--runner", "kfp-local", *trainers, *settings).json
    assert there["stages"]["ensemble"]["status"] == "ran"
    for name in ("tensorflow", "pytorch", "ensemble"):
        assert there["models"][name]["metrics"] == pytest.approx(here["models"][name]["metrics"], abs=1e-5), name
    losses = {name: model["metrics"]["loss"] for name, model in here["models"].items()}
    assert losses["ensemble"] < min(losses["tensorflow"], losses["pytorch"]) + 0.01
