"""Columns and classes that are not what they seem, through the command line."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from switchyard.components.text.markdown import plain
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.model_registry import CHAMPION, MODEL_URI, POSITIVE_CLASS, alias_version
from switchyard.pipelines.workspace import Workspace

QUICK = {"framework": "pytorch", "hyperparameters": {"epochs": 5}}
SECONDS = 1_700_000_000


def pipeline(folder, name, path, **more):
    file = folder / f"{name}.yaml"
    document = {"name": name, "data": {"path": path}, "label": "y", "trainer": QUICK, "serving": {"infra_validation": None}}
    file.write_text(yaml.safe_dump({**document, **more}))
    return file


def features(workspace):
    [file] = Workspace(workspace).root.rglob("bundle.json")
    return [f["name"] for f in json.loads(file.read_text())["features"]]


def test_an_index_that_pandas_stored_is_no_feature_and_one_that_is_kept_stops_the_run(tmp_path, warm):
    rng = np.random.default_rng(32)
    noise = pd.DataFrame({"x": rng.normal(size=2000), "w": rng.normal(size=2000), "y": np.sort(rng.integers(0, 2, 2000))})
    shuffled = noise.query("x < 9").iloc[rng.permutation(2000)]
    shuffled.to_parquet(tmp_path / "d.parquet")
    shuffled.rename_axis("row").to_parquet(tmp_path / "kept.parquet")
    done = warm("run", pipeline(tmp_path, "stored_index", "d.parquet"), "--workspace", tmp_path / "w", "--json")
    assert done.code == 4, done.stderr
    assert "skipped '__index_level_0__', an index stored with the columns" in done.stderr
    assert done.json["metrics"]["auc"] < 0.65
    kept = warm("run", pipeline(tmp_path, "kept", "kept.parquet"), "--workspace", tmp_path / "w", "--json")
    assert kept.code == 3
    assert "row (train): an index that predicts the label by itself" in kept.stderr
    assert "--set 'validation.on_anomaly.features.row=warn'" in kept.stderr


def test_the_index_of_concatenated_tables_stops_the_run_or_is_excluded(tmp_path, warm):
    rng = np.random.default_rng(1)
    tables = [pd.DataFrame({"x": rng.normal(size=n), "y": np.sort(rng.integers(0, 2, n))}) for n in (700, 500)]
    noise = pd.concat(tables).sample(frac=1, random_state=0)
    noise.reset_index().to_parquet(tmp_path / "d.parquet", index=False)
    noise.to_csv(tmp_path / "d.csv")
    kept = warm("run", pipeline(tmp_path, "kept", "d.parquet"), "--workspace", tmp_path / "w", "--json")
    assert kept.code == 3
    assert "index (train): an index that predicts the label by itself" in kept.stderr
    left_out = warm("run", pipeline(tmp_path, "left_out", "d.csv"), "--workspace", tmp_path / "w", "--json")
    assert left_out.code == 4, left_out.stderr
    assert "skipped '', an index stored with the columns" in left_out.stderr


def test_an_hourly_series_is_forecast_although_neighbouring_hours_are_alike(tmp_path, warm):
    rng = np.random.default_rng(3)
    hours, warmth = np.arange(1200), np.zeros(1200)
    for i in hours[1:]:
        warmth[i] = 0.97 * warmth[i - 1] + rng.normal()
    rows = {"at": pd.date_range("2011-01-01", periods=1200, freq="h"), "temp": (warmth + rng.normal(0, 0.5, 1200)).round(2)}
    pd.DataFrame({**rows, "y": warmth.round(3)}).to_csv(tmp_path / "d.csv", index=False)
    done = warm("run", pipeline(tmp_path, "rides", "d.csv"), "--workspace", tmp_path / "w", "--json")
    assert done.stages["training"] == "ran", done.stderr
    assert "at (train): grows with time" in done.stderr


@pytest.fixture(scope="module")
def bad(tmp_path_factory, warm):
    """The same rows with two spellings of the rare class, run in a workspace each."""
    folder = tmp_path_factory.mktemp("positive_class")
    rng = np.random.default_rng(33)
    is_bad = rng.random(4000) < 0.04
    frame = pd.DataFrame({"s": (rng.normal(size=4000) + is_bad * 0.7).round(3), "n": rng.normal(size=4000).round(3)})
    runs = {}
    for name in ("bad", "zbad"):
        frame.assign(y=np.where(is_bad, name, "good")).to_csv(folder / f"{name}.csv", index=False)
        file = pipeline(folder, f"p_{name}", f"{name}.csv")
        runs[name] = warm("run", file, "--workspace", folder / name, "--json", "--set", "evaluation.improvement=null")
        assert runs[name].code in (0, 4), runs[name].stderr
    return folder, runs


def test_renaming_a_class_changes_no_metric_and_no_verdict(bad):
    _, runs = bad
    first, second = runs["bad"].json, runs["zbad"].json
    assert first["metrics"] == pytest.approx(second["metrics"], abs=1e-6)
    assert first["metrics"]["auc_precision_recall"] < 0.3, "the figures are about the rare class"
    assert (first["status"], first["blessed"]) == (second["status"], second["blessed"])
    assert (first["positive_class"], second["positive_class"]) == ("bad", "zbad")


def test_the_positive_class_is_in_the_table_the_version_the_bundle_and_the_predictions(bad, tmp_path, warm):
    folder, runs = bad
    assert "positive class: bad (the rarer class)" in runs["bad"].stderr
    [bundle] = (folder / "bad").rglob("Format-Serving/**/bundle.json")
    assert json.loads(bundle.read_text())["positive_class"] == "bad"
    client = tracking.client(Workspace(folder / "bad").mlflow_uri)
    version = client.get_model_version("p_bad", alias_version(client, "p_bad", CHAMPION))
    assert version.tags[POSITIVE_CLASS] == "bad"
    assert plain("positive class: bad (the rarer class)") in version.description
    done = warm("predict", "p_bad@champion", folder / "bad.csv", "--workspace", folder / "bad", "--output", tmp_path / "p.csv")
    assert done.code == 0, done.stderr
    found = pd.read_csv(tmp_path / "p.csv")
    assert set(found["positive_class"]) == {"bad"}
    assert found.probability[found.y == "bad"].mean() > found.probability[found.y == "good"].mean()


def test_positive_class_selects_the_other_class_and_the_champion_is_still_compared(bad, warm):
    folder, runs = bad
    options = ["--workspace", folder / "bad", "--json", "--set", "positive_class=good"]
    done = warm("run", folder / "p_bad.yaml", *options)
    assert done.json["positive_class"] == "good"
    assert done.json["metrics"]["auc_precision_recall"] > 0.9
    assert done.json["models"]["champion"]["metrics"]["auc"] == pytest.approx(runs["bad"].json["metrics"]["auc"], abs=1e-3)
    wrong = warm("run", folder / "p_bad.yaml", "--workspace", folder / "bad", "--set", "positive_class=god")
    assert (wrong.code, "The classes are bad, good" in wrong.stderr) == (2, True)


def test_the_champions_choice_stays_when_the_other_class_has_become_the_rarer_one(tmp_path, warm):
    workspace = Workspace(tmp_path / "w")
    workspace.create()
    client = tracking.client(workspace.mlflow_uri)
    client.create_registered_model("kept")
    version = client.create_model_version("kept", str(tmp_path), tags={POSITIVE_CLASS: "bad", MODEL_URI: "made by us"})
    client.set_registered_model_alias("kept", CHAMPION, version.version)
    labels = ["bad"] * 60 + ["good"] * 40
    pd.DataFrame({"x": np.arange(100) % 7, "y": labels}).to_csv(tmp_path / "d.csv", index=False)
    done = warm("run", pipeline(tmp_path, "kept", "d.csv"), "--workspace", tmp_path / "w")
    assert "positive_class: bad, taken from the champion; set positive_class" in done.stderr, done.stderr


def test_partition_folders_become_columns_and_seconds_stay_distinct_in_training_and_prediction(tmp_path, warm):
    rng = np.random.default_rng(0)
    seconds = SECONDS + rng.integers(0, 400, 2000)
    region = rng.choice(["01", "1", "2"], 2000)
    late = (seconds > SECONDS + 200) ^ (region == "01")
    frame = pd.DataFrame({"t": seconds.astype(float), "n": rng.normal(size=2000), "y": late ^ (rng.random(2000) < 0.02)})
    for name, part in frame.astype({"y": int}).groupby(region):
        (tmp_path / "data" / f"region={name}").mkdir(parents=True)
        part.to_parquet(tmp_path / "data" / f"region={name}" / "part-0.parquet", index=False)
    (tmp_path / "data" / "_SUCCESS").touch()
    learn = {"framework": "pytorch", "hyperparameters": {"epochs": 40, "learning_rate": 0.01}}
    done = warm.run(pipeline(tmp_path, "parts", "data", trainer=learn), tmp_path / "w")
    assert "as float32; all are whole numbers and are kept as integers" in done.stderr
    assert "read from folder names, as text: region" in done.stderr
    assert "1 files without rows are skipped (markers and empty parts): _SUCCESS" in done.stderr
    assert done.json["metrics"]["auc"] > 0.95
    predicted = warm("predict", "parts@champion", tmp_path / "data", "--workspace", tmp_path / "w", "-o", tmp_path / "p.parquet")
    assert predicted.code == 0, predicted.stderr
    found = pd.read_parquet(tmp_path / "p.parquet")
    assert set(found.region) == {"01", "1", "2"}
    assert ((found.probability > 0.5) == found.y).mean() > 0.9
