"""Weights of rows through a whole run of both trainers: measured by them, and no input of what is served."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import Model

from benchmarks.by_hand.data import LABELS, write
from tests.features.test_tasks import BOTH, SMALL

LABEL, WEIGHT, OTHER = LABELS["multilabel"], "importance", "urgency"


@pytest.fixture(scope="module")
def ran(warm, tmp_path_factory):
    """A folder with a pipeline of several labels, two columns of weights of 0 to 3, and a run of both trainers by one."""
    folder = tmp_path_factory.mktemp("weights")
    splits = write("multilabel", folder)
    for i, path in enumerate(splits.values()):
        frame = pd.read_csv(path)
        weights = np.random.default_rng(i).integers(0, 4, (2, len(frame)))
        frame.assign(**dict(zip((WEIGHT, OTHER), weights, strict=True))).to_csv(path, index=False)
    document = {"name": "weighted", "task": "multilabel", "label": LABEL, "data": {"splits": splits, "exclude": [OTHER]}}
    document |= {"trainer": {"sample_weight": WEIGHT}, "evaluation": {"slices": ["city"], "metrics": "own.py"}}
    (folder / "own.py").write_text(
        "def cost(labels, scores, weights):\n    return float(weights @ abs(labels - scores).sum(1))\n"
    )
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


@pytest.fixture(scope="module")
def versions(ran, warm):
    """Versions by the column of their weights, "" for none."""
    folder, first = ran
    found = {WEIGHT: first["model_version"]}
    for weight, excluded in ((OTHER, [WEIGHT]), ("", [WEIGHT, OTHER])):
        settings = (f"trainer.sample_weight={weight or 'null'}", f"data.exclude={json.dumps(excluded)}")
        other = ["--trainer", "pytorch", *SMALL, *(option for s in settings for option in ("--set", s))]
        again = warm("run", folder / "pipeline.yaml", "--workspace", folder / "w", "--json", *other)
        assert again.code in (0, 4), again.stderr
        found[weight] = again.json["model_version"]
    return found


@pytest.mark.parametrize(
    ("pair", "options", "dropped", "weighted_by"),
    [
        ((WEIGHT, ""), [], [], WEIGHT),
        (("", WEIGHT), [], [], WEIGHT),
        ((WEIGHT, ""), [], [WEIGHT], ""),
        ((WEIGHT, OTHER), [], [OTHER], WEIGHT),
        ((WEIGHT, OTHER), ["--sample-weight", WEIGHT], [], WEIGHT),
        ((OTHER, ""), ["--sample-weight", WEIGHT], [], WEIGHT),
        ((WEIGHT, OTHER), ["--sample-weight", ""], [], ""),
    ],
)
def test_versions_are_compared_by_one_weight_of_each_row(pair, options, dropped, weighted_by, ran, versions, warm, tmp_path):
    folder, first = ran
    rows = pd.read_csv(folder / "test.csv", dtype=str).drop(columns=dropped)
    pd.concat([rows, rows.head(2).assign(**{LABEL[0]: None})]).to_csv(tmp_path / "rows.csv", index=False)
    place = ["--data", tmp_path / "rows.csv", "--json", "--workspace", folder / "w"]
    done = warm("models", "compare", "weighted", *(versions[v] for v in pair), *options, *place)
    assert done.code == 0, done.stderr
    assert (done.json["weighted_by"], done.json["rows"], done.json["unlabelled"]) == (weighted_by, len(rows), 2)
    assert done.json["unmeasured"] == ["cost"]
    if WEIGHT in pair:
        same = done.json["metrics"][versions[WEIGHT]]["auc"] == pytest.approx(first["metrics"]["auc"], abs=1e-6)
        assert same == bool(weighted_by)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "have different sample weights, 'importance' and 'urgency'; choose one column for both by --sample-weight COLUMN"),
        (["--sample-weight", "urgncy"], "has no column 'urgncy'. Did you mean 'urgency'?"),
        (["--sample-weight", LABEL[0]], "--sample-weight: the column"),
        (["--sample-weight", "city"], "city, the sample weights, must be finite numbers of 0 or more"),
    ],
)
def test_a_comparison_without_one_weight_of_each_row_is_refused(options, message, ran, versions, warm):
    folder, _ = ran
    place = ["--data", folder / "test.csv", "--workspace", folder / "w"]
    done = warm("models", "compare", "weighted", versions[WEIGHT], versions[OTHER], *options, *place)
    assert done.code == 2
    assert message in " ".join(done.stderr.split())


def test_a_weight_below_0_stops_the_run_at_the_data_gate(ran, warm, tmp_path):
    folder, _ = ran
    document = yaml.safe_load((folder / "pipeline.yaml").read_text())
    frame = pd.read_csv(folder / "train.csv")
    frame.loc[0, WEIGHT] = -1
    frame.to_csv(tmp_path / "train.csv", index=False)
    document["data"]["splits"]["train"] = str(tmp_path / "train.csv")
    document["evaluation"]["metrics"] = str(folder / "own.py")
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(document))
    done = warm("run", tmp_path / "pipeline.yaml", "--workspace", tmp_path / "w", "--trainer", "pytorch", *SMALL)
    assert done.code == 3, done.stderr
    assert "negative sample weights" in done.stderr + done.stdout
