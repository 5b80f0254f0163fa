"""LightGBM beside both networks: one run, one table, and a bundle that is served and predicts like the others."""

import json

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from switchyard.components.bundle.model import load_bundle
from tests.command import BREAST_CANCER, NO_CONTEST

TRAINERS = ("tensorflow", "pytorch", "lightgbm")


@pytest.fixture(scope="module")
def rivals(warm, tmp_path_factory):
    """The workspace and the run of three trainers; infra validation serves each of them over HTTP."""
    workspace = tmp_path_factory.mktemp("rivals") / "w"
    chosen = [part for name in TRAINERS for part in ("--trainer", name)]
    settings = ["trainer.hyperparameters.epochs=5", "trainer.hyperparameters.class_weights=balanced", "trainer.trees.rounds=40"]
    settings = [part for setting in settings for part in ("--set", setting)]
    return workspace, warm.run(BREAST_CANCER, workspace, *chosen, *settings, *NO_CONTEST)


def bundle(workspace):
    for folder in (workspace / "artifacts" / "training_lightgbm" / "model").glob("*/Format-Serving"):
        return folder
    raise AssertionError


def test_three_trainers_are_one_run_and_one_table(rivals):
    _, done = rivals
    models = done.json["models"]
    assert sorted(models) == sorted(TRAINERS)
    assert models["lightgbm"]["metrics"]["auc"] > 0.97
    assert all(set(m["metrics"]) == set(models["tensorflow"]["metrics"]) for m in models.values())
    assert all(done.stages[f"training_{name}"] == "ran" for name in TRAINERS)
    assert done.stages["infra_validation"] == "ran"


def test_rounds_are_logged_as_curves_and_parameters_as_those_of_trees(rivals):
    workspace, done = rivals
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    parent = f"tags.mlflow.parentRunId = '{done.json['mlflow_run_id']}'"
    runs = {r.info.run_name: r for r in client.search_runs([done.json["mlflow_experiment_id"]], parent)}
    training = runs["training_lightgbm"]
    for metric in ("loss", "val_loss", "val_auc"):
        steps = [m.step for m in client.get_metric_history(training.info.run_id, metric)]
        assert steps == list(range(1, len(steps) + 1))
        assert 5 < len(steps) <= 40
    assert training.data.params["trees.rounds"] == "40"
    assert "batch_size" not in training.data.params
    assert runs["training_pytorch"].data.params["batch_size"] == "32"


def test_a_row_has_the_same_score_alone_and_in_a_batch(rivals):
    model = load_bundle(bundle(rivals[0]))
    rows = pd.read_csv(BREAST_CANCER.parent / "data.csv").drop(columns="diagnosis")
    scores = model.scores(rows)
    np.testing.assert_array_equal(scores[:20], np.concatenate([model.scores(rows[i : i + 1]) for i in range(20)]))


def test_files_are_predicted(rivals, warm, tmp_path):
    done = warm("predict", bundle(rivals[0]), BREAST_CANCER.parent / "data.csv", "-o", tmp_path / "scores.csv", "--trust")
    assert done.code == 0, done.stderr
    found = pd.read_csv(tmp_path / "scores.csv")
    assert (found["prediction"] == pd.read_csv(BREAST_CANCER.parent / "data.csv")["diagnosis"]).mean() > 0.95


def test_a_bundle_whose_trees_were_changed_is_refused(rivals, warm, tmp_path):
    import shutil

    copy = shutil.copytree(bundle(rivals[0]), tmp_path / "model")
    [file] = copy.glob("artifacts/*/model/model.txt")
    file.write_text(file.read_text().replace("split_feature=", "split_feature=999 ", 1))
    done = warm("predict", copy, BREAST_CANCER.parent / "data.csv", "-o", tmp_path / "scores.csv", "--trust")
    assert done.code == 2
    assert "model.txt" in done.stderr
    assert json.loads((copy / "manifest.json").read_text())
