"""An ensemble of three frameworks: weights from the eval split, judged, served, promoted and predicted like any candidate."""

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from benchmarks.by_hand.data import LABELS, write
from switchyard.components.bundle.model import bundle_info, load_bundle
from switchyard.components.serving.client import tensors
from tests.command import NO_CONTEST
from tests.serving.server import serving

MEMBERS = ("tensorflow", "pytorch", "lightgbm")
TRAINERS = [part for name in (*MEMBERS, "ensemble") for part in ("--trainer", name)]
SMALL = ["trainer.hyperparameters.epochs=3", "trainer.hyperparameters.learning_rate=0.01", "trainer.trees.rounds=40"]
SMALL = [part for setting in SMALL for part in ("--set", setting)]
SCORES = [f"probability_{label}" for label in LABELS["multilabel"]]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The folder of a pipeline whose rows have three labels, and of its data."""
    folder = tmp_path_factory.mktemp("ensemble")
    document = {"name": "parcels", "task": "multilabel", "label": LABELS["multilabel"]}
    document["data"] = {"splits": write("multilabel", folder)}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(document))
    return folder


@pytest.fixture(scope="module")
def combined(warm, project):
    """The workspace and the run of three trainers and their ensemble; infra validation serves each of them over HTTP."""
    return project / "w", warm.run(project / "pipeline.yaml", project / "w", *TRAINERS, *SMALL, *NO_CONTEST)


def bundle(workspace, stage):
    """Returns the first bundle of a stage."""
    folders = sorted((workspace / "artifacts" / stage / "model").iterdir(), key=lambda f: int(f.name))
    return folders[0] / "Format-Serving"


def weights_of(folder):
    return {member.name: member.weight for member in bundle_info(folder).members}


def version_of_ensemble(workspace):
    found = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}").search_model_versions("name='parcels'")
    return min((v for v in found if v.tags["framework"] == "ensemble"), key=lambda v: int(v.version))


@pytest.fixture(scope="module")
def rows(project):
    return pd.read_csv(project / "test.csv").drop(columns=LABELS["multilabel"])


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
    assert models["ensemble"]["metrics"]["loss"] < min(models[name]["metrics"]["loss"] for name in MEMBERS) + 0.005
    version = version_of_ensemble(workspace)
    assert all(name in version.tags["members"] for name in MEMBERS)
    assert "Weighted mean of its members' predictions: " in version.description


def test_its_weights_are_those_of_the_bundle_in_mlflow_and_in_the_report(combined):
    workspace, done = combined
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    parent = f"tags.mlflow.parentRunId = '{done.json['mlflow_run_id']}'"
    runs = {r.info.run_name: r.data for r in client.search_runs([done.json["mlflow_experiment_id"]], parent)}
    found, weights = runs["ensemble"], weights_of(bundle(workspace, "ensemble"))
    assert len(weights) > 1
    assert found.params["members"] == ", ".join(MEMBERS)
    logged = {name: float(found.params[f"weight.{name}"]) for name in MEMBERS}
    assert {n: w for n, w in logged.items() if w} == pytest.approx(weights)
    assert sum(weights.values()) == pytest.approx(1)
    assert found.metrics["val_loss"] < min(found.metrics[f"val_loss.{name}"] for name in MEMBERS)
    [report] = (workspace / "artifacts" / "report" / "report").glob("*/report.html")
    assert f"ensemble: {logged['tensorflow']:.4f} tensorflow" in report.read_text()


def test_its_scores_are_the_weighted_mean_of_its_members(combined, rows, wanted):
    folder = bundle(combined[0], "ensemble")
    np.testing.assert_allclose(load_bundle(folder).scores(rows), wanted, atol=1e-6)
    as_mlflow = mlflow.pyfunc.load_model(str(folder)).predict(rows)
    np.testing.assert_allclose(as_mlflow[SCORES], wanted, atol=1e-6)
    needed = {"tensorflow": "tensorflow", "pytorch": "torch", "lightgbm": "lightgbm"}
    requirements = (folder / "requirements.txt").read_text()
    assert all(f"{needed[name]}==" in requirements for name in weights_of(folder))


def test_it_predicts_files_and_is_served(combined, project, rows, wanted, warm, tmp_path):
    folder = bundle(combined[0], "ensemble")
    done = warm("predict", folder, project / "test.csv", "-o", tmp_path / "scores.csv", "--trust")
    assert done.code == 0, done.stderr
    np.testing.assert_allclose(pd.read_csv(tmp_path / "scores.csv")[SCORES], wanted, atol=1e-6)
    with serving(folder, tmp_path / "log", name="m") as server:
        status, _, answer = server.infer(tensors(rows, bundle_info(folder).features))
        assert status == 200, answer
        served = {output["name"]: output["data"] for output in answer["outputs"]}
        np.testing.assert_allclose(np.stack([served[name] for name in SCORES], axis=1), wanted, atol=1e-6)


def test_a_changed_member_makes_another_ensemble_and_the_first_is_a_champion_and_a_start(combined, project, warm):
    workspace, first = combined
    version = str(version_of_ensemble(workspace).version)
    if first.json["champion"] != version:
        moved = warm("models", "promote", "parcels", version, "--why", "a test", "--force", "--workspace", workspace)
        assert moved.code == 0, moved.stderr
    changed = ["--set", "trainer.start_from={pytorch: champion}", "--set", "trainer.trees.rounds=20"]
    done = warm("run", project / "pipeline.yaml", "--workspace", workspace, "--json", *TRAINERS, *SMALL[:4], *changed)
    assert done.code in (0, 4), done.stderr
    ran = {name: done.stages[name] for name in ("training_tensorflow", "training_pytorch", "training_lightgbm", "ensemble")}
    assert ran == {"training_tensorflow": "cached", "training_pytorch": "ran", "training_lightgbm": "ran", "ensemble": "ran"}
    champion = done.json["models"]["champion"]
    assert champion["version"] == version
    assert champion["metrics"] == pytest.approx(first.json["models"]["ensemble"]["metrics"], abs=1e-6)


def test_kubeflows_local_runner_makes_the_same_ensemble(combined, project, warm):
    there = warm.run(project / "pipeline.yaml", project / "kfp", "--runner", "kfp-local", *TRAINERS, *SMALL, *NO_CONTEST).json
    assert there["stages"]["ensemble"]["status"] == "ran"
    for name, model in combined[1].json["models"].items():
        assert there["models"][name]["metrics"] == pytest.approx(model["metrics"], abs=1e-5), name
