"""The gates on breast_cancer: what is wrong with the data is named and never trained on; a worse model is never promoted."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from tests.command import BREAST_CANCER, EXAMPLES

DATA = EXAMPLES / "breast_cancer" / "data.csv"
QUICK = ["--set", "trainer.hyperparameters.epochs=12", "--set", "serving.infra_validation=null"]
TRAINING = {"training", "training_tensorflow", "training_pytorch"}


@pytest.fixture
def frame():
    return pd.read_csv(DATA)


@pytest.fixture(scope="module")
def contest(tmp_path_factory, warm):
    """The workspace and the run of both trainers in one, the better one champion."""
    workspace = tmp_path_factory.mktemp("gates")
    return workspace, warm.run(BREAST_CANCER, workspace, "--trainer", "tensorflow", "--trainer", "pytorch", *QUICK)


@pytest.fixture(scope="module")
def champion(workspace, tmp_path_factory):
    """A copy of the workspace with trained models, and the version of the champion there."""
    copy = tmp_path_factory.mktemp("gates") / "w"
    shutil.copytree(workspace, copy, symlinks=True)
    client = MlflowClient(f"sqlite:///{copy / 'mlflow.db'}")
    return copy, str(client.get_model_version_by_alias("breast_cancer", "champion").version)


def on(data, *arguments):
    return ["--set", f"data.path={data}", *QUICK, *arguments]


def stopped(done, *words):
    assert done.json["status"] == "stopped_by_data_gate"
    assert not TRAINING & done.stages.keys()
    missing = [w for w in words if w not in done.json["error"]]
    assert not missing, f"{missing} not in\n{done.json['error']}"


def test_both_trainers_in_one_run_and_the_best_is_champion(contest):
    _, done = contest
    models = done.json["models"]
    assert list(models) == sorted(models, key=lambda n: -models[n]["metrics"]["auc"])
    assert sum(m["blessed"] for m in models.values()) == 1
    best = done.json["trainer"]
    assert models[best]["blessed"]
    assert done.json["champion"] == done.json["model_version"]
    assert f"{best} against" in done.stderr
    assert "95 % interval" in done.stderr
    assert "better with a probability of" in done.stderr


def test_mlflow_holds_one_table_of_all_candidates(contest):
    workspace, done = contest
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    path = client.download_artifacts(done.json["mlflow_run_id"], "evaluation/models.json")
    table = json.load(open(path))
    assert {row[0] for row in table["data"]} == {"tensorflow", "pytorch"}
    assert "auc" in table["columns"]


@pytest.mark.core
def test_a_renamed_column_stops_the_run(champion, frame, warm, tmp_path):
    frame.rename(columns={"worst_area": "worst_aera"}).to_csv(tmp_path / "d.csv", index=False)
    done = warm.run(BREAST_CANCER, champion[0], *on(tmp_path / "d.csv"), expect=3)
    stopped(done, "schema: worst_area (train): column dropped", "Rows: 100%", "schema: worst_aera (train): new column")
    assert "--set 'validation.on_anomaly.features.worst_area=warn'" in done.json["error"]


def test_a_renamed_column_stops_the_run_without_a_reviewed_schema_too(champion, frame, warm, tmp_path):
    """The champion was trained on the column: that is enough to miss it."""
    frame.rename(columns={"worst_area": "worst_aera"}).to_csv(tmp_path / "d.csv", index=False)
    done = warm.run(BREAST_CANCER, champion[0], *on(tmp_path / "d.csv", "--set", "validation.schema=null"), expect=3)
    stopped(done, "champion: worst_area (train): column is gone")
    assert "champion version" in done.stderr
    assert "cannot be compared: it needs the column 'worst_area', which is not in the data" in done.stderr


def test_a_new_class_stops_the_run(champion, frame, warm, tmp_path):
    frame.loc[:56, "diagnosis"] = "unclear"
    frame.to_csv(tmp_path / "d.csv", index=False)
    done = warm("run", BREAST_CANCER, "--workspace", champion[0], *on(tmp_path / "d.csv"))
    assert done.code == 3
    assert (
        "schema: diagnosis (label): unexpected string values. Expected: benign, malignant. Seen: unclear. Rows: 10%"
        in done.stderr
    )


def test_a_column_in_other_units_stops_the_run(champion, frame, warm, tmp_path):
    frame["mean_radius"] *= 1000
    frame.to_csv(tmp_path / "d.csv", index=False)
    done = warm.run(BREAST_CANCER, champion[0], *on(tmp_path / "d.csv"), expect=3)
    stopped(
        done,
        "the data gate stopped the run: 1 finding.",
        "schema: mean_radius (train): out-of-range values. Expected: values from 0 to 57.",
        "drift: its distribution has changed (train, against the champion's training data; train, against the previous run)",
        "--set 'validation.drift.features.mean_radius={fail: 1}' --set 'validation.on_anomaly.features.mean_radius=warn'",
    )
    client = MlflowClient(f"sqlite:///{champion[0] / 'mlflow.db'}")
    page = open(client.download_artifacts(done.json["mlflow_run_id"], "report/report.html")).read()
    assert "stopped the run" in page
    assert "mean_radius" in page


def test_skew_against_a_sample_of_serving_requests_stops_the_run(champion, frame, warm, tmp_path):
    """The data is as it was; what is served is in other units, and lacks a column."""
    requests = frame.drop(columns=["diagnosis", "mean_area"])
    requests["mean_radius"] /= 25.4
    requests.to_csv(tmp_path / "requests.csv", index=False)
    done = warm.run(
        BREAST_CANCER, champion[0], *QUICK, "--set", f"validation.serving_sample={tmp_path / 'requests.csv'}", expect=3
    )
    stopped(
        done,
        "skew: mean_radius (serving sample, against train): its distribution has changed",
        "skew: mean_area (serving sample, against train): column is gone. Expected: a FLOAT column, as in training.",
    )
    assert "diagnosis" not in done.json["error"]


def test_rows_duplicated_across_splits_stop_the_run(champion, frame, warm, tmp_path):
    train, rest = frame.iloc[:400], frame.iloc[400:]
    train.to_csv(tmp_path / "train.csv", index=False)
    pd.concat([rest, train.sample(len(rest), random_state=0)]).to_csv(tmp_path / "eval.csv", index=False)
    document = yaml.safe_load(BREAST_CANCER.read_text())
    document["data"] = {"splits": {"train": "train.csv", "eval": "eval.csv"}}
    document["validation"]["schema"] = str(BREAST_CANCER.parent / "schema.pbtxt")
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document))
    done = warm.run(tmp_path / "p.yaml", champion[0], *QUICK, expect=3)
    stopped(done, "leakage: eval: rows are duplicated across splits", "169 of 338 rows are in train", "Rows: 50%")


@pytest.mark.core
def test_flipped_labels_train_and_are_not_promoted(champion, frame, warm, tmp_path):
    chosen = np.random.default_rng(0).permutation(len(frame))[: len(frame) // 5]
    other = {"benign": "malignant", "malignant": "benign"}
    frame = frame.copy()
    frame.loc[chosen, "diagnosis"] = frame.loc[chosen, "diagnosis"].map(other)
    frame.to_csv(tmp_path / "d.csv", index=False)
    done = warm.run(BREAST_CANCER, champion[0], *on(tmp_path / "d.csv"), expect=4)
    assert "auc is 0." in done.json["error"]
    assert "below its lower bound 0.9500" in done.json["error"]
    assert done.json["model_version"] is None
    assert done.json["champion"] == champion[1]


FEATURES = """
def preprocessing_fn(inputs):
    import tensorflow_transform as tft

    return {"a": tft.scale_to_z_score(inputs["mean_smoothness"])}
"""


def weak_then_good(first, second, warm, folder):
    """A weak champion (one noisy feature) of one framework, then a good model of the other one takes its place."""
    document = {**yaml.safe_load(BREAST_CANCER.read_text()), "data": {"path": str(DATA)}}
    del document["evaluation"], document["validation"]
    (folder / "good.yaml").write_text(yaml.safe_dump(document))
    (folder / "features.py").write_text(FEATURES)
    (folder / "weak.yaml").write_text(yaml.safe_dump({**document, "preprocessing": "features.py"}))
    weak = warm.run(folder / "weak.yaml", folder / "w", "--trainer", first, *QUICK)
    assert weak.json["champion"] == "1"
    good = warm.run(folder / "good.yaml", folder / "w", "--trainer", second, *QUICK)
    assert good.json["champion"] == "2"
    assert good.json["models"]["champion"]["metrics"]["auc"] < good.json["metrics"]["auc"] - 0.1


def aliases(folder):
    found = MlflowClient(f"sqlite:///{folder / 'w' / 'mlflow.db'}").get_registered_model("breast_cancer").aliases
    return {alias: str(version) for alias, version in found.items()}


def test_a_better_tensorflow_model_replaces_a_pytorch_champion(warm, tmp_path):
    weak_then_good("pytorch", "tensorflow", warm, tmp_path)
    assert aliases(tmp_path) == {"champion": "2", "previous": "1"}


def test_a_better_pytorch_model_replaces_a_tensorflow_champion_and_a_worse_one_is_refused(warm, tmp_path):
    weak_then_good("tensorflow", "pytorch", warm, tmp_path)
    seed = ["--set", "trainer.hyperparameters.seed=7"]
    worse = warm.run(tmp_path / "weak.yaml", tmp_path / "w", "--trainer", "tensorflow", *QUICK, *seed, expect=4)
    assert worse.json["champion"] == "2"
    assert "worse (improvement -0." in worse.json["error"]
    assert "the champion's (version 2, pytorch)" in worse.json["error"]
    assert aliases(tmp_path) == {"champion": "2", "previous": "1", "challenger": "3"}
