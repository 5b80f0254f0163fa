"""Weights of rows through a whole run of both trainers: measured by them, and no input of what is served."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import Model

from benchmarks.by_hand.data import LABELS, write
from tests.e2e.test_tasks import BOTH, SMALL

LABEL, WEIGHT = LABELS["multilabel"], "importance"


@pytest.fixture(scope="module")
def ran(warm, tmp_path_factory):
    """A folder with a pipeline of several labels and weights of 0 to 3, and its run of both trainers."""
    folder = tmp_path_factory.mktemp("weights")
    splits = write("multilabel", folder)
    for i, path in enumerate(splits.values()):
        frame = pd.read_csv(path)
        frame.assign(**{WEIGHT: np.random.default_rng(i).integers(0, 4, len(frame))}).to_csv(path, index=False)
    document = {"name": "weighted", "task": "multilabel", "label": LABEL, "data": {"splits": splits}}
    document |= {"trainer": {"sample_weight": WEIGHT}, "evaluation": {"slices": ["city"]}}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(document))
    return folder, warm.run(folder / "pipeline.yaml", folder / "w", *BOTH, *SMALL).json


def test_the_champions_metrics_are_weighted_means_of_what_it_predicts_without_the_weights(ran, warm):
    folder, result = ran
    assert result["status"] == "blessed"
    rows = pd.read_csv(folder / "test.csv")
    rows.drop(columns=WEIGHT).to_csv(folder / "requests.csv", index=False)
    done = warm("predict", "weighted@champion", folder / "requests.csv", "-o", folder / "out.csv", "--workspace", folder / "w")
    assert done.code == 0, done.stderr
    predicted = pd.read_csv(folder / "out.csv")
    for label in LABEL:
        right = predicted[f"prediction_{label}"] == rows[label]
        assert result["metrics"][f"accuracy/{label}"] == pytest.approx(np.average(right, weights=rows[WEIGHT]), abs=1e-6)
        assert result["metrics"][f"accuracy/{label}"] != pytest.approx(right.mean(), abs=1e-6)


def test_the_weights_are_in_no_signature_and_slices_count_rows(ran):
    folder, _ = ran
    for trainer in ("tensorflow", "pytorch"):
        bundle = next((folder / "w" / "artifacts" / f"training_{trainer}" / "model").glob("*/Format-Serving"))
        assert WEIGHT not in Model.load(str(bundle)).signature.inputs.input_names()
    [evaluation] = (folder / "w" / "artifacts" / "evaluation" / "evaluation").iterdir()
    cities = pd.read_csv(folder / "test.csv").city.value_counts()
    for model in json.loads((evaluation / "metrics.json").read_text())["models"].values():
        assert {f"city={city}": model["slices"][f"city={city}"]["example_count"] for city in cities.index} == {
            f"city={city}": count for city, count in cities.items()
        }


def test_versions_are_compared_by_the_weights_of_a_file_that_has_them(ran, warm):
    folder, first = ran
    other = ["--trainer", "pytorch", *SMALL, "--set", "trainer.hyperparameters.seed=7"]
    again = warm("run", folder / "pipeline.yaml", "--workspace", folder / "w", "--json", *other)
    assert again.code in (0, 4), again.stderr
    versions = first["model_version"], again.json["model_version"]
    for file, weighted_by in (("test.csv", WEIGHT), ("requests.csv", "")):
        rows = pd.read_csv(folder / "test.csv")
        (rows if weighted_by else rows.drop(columns=WEIGHT)).to_csv(folder / file, index=False)
        done = warm("models", "compare", "weighted", *versions, "--data", folder / file, "--json", "--workspace", folder / "w")
        assert done.code == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["weighted_by"] == weighted_by
        alike = found["metrics"][versions[0]]["auc"] == pytest.approx(first["metrics"]["auc"], abs=1e-6)
        assert alike == bool(weighted_by)


def test_a_weight_below_0_stops_the_run_at_the_data_gate(ran, warm, tmp_path):
    folder, _ = ran
    document = yaml.safe_load((folder / "pipeline.yaml").read_text())
    frame = pd.read_csv(folder / "train.csv")
    frame.loc[0, WEIGHT] = -1
    frame.to_csv(tmp_path / "train.csv", index=False)
    document["data"]["splits"]["train"] = str(tmp_path / "train.csv")
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(document))
    done = warm("run", tmp_path / "pipeline.yaml", "--workspace", tmp_path / "w", "--trainer", "pytorch", *SMALL)
    assert done.code == 3, done.stderr
    assert "negative sample weights" in done.stderr + done.stdout
