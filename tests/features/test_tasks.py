"""Each task of the table but binary: one run of both networks and of boosted trees with a search, and all that follows."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import Model

from benchmarks.by_hand.data import LABELS, write
from tests.command import NO_CONTEST

BOTH = ["--trainer", "tensorflow", "--trainer", "pytorch"]
CONFIGS = {
    "quantile": {"label": "y", "trainer": {"quantiles": [0.1, 0.5, 0.9]}},
    "multioutput": {"label": LABELS["multioutput"]},
    "multilabel": {"label": LABELS["multilabel"]},
    "ranking": {"label": "relevance", "group": "query_id"},
    "multiclass": {"label": "relevance"},
    "regression": {"label": "y"},
}
# Tasks on the data of another one.
DATA = {"multiclass": "ranking", "regression": "quantile"}
# Task -> the columns of predictions, metrics of the test split with their bounds, and what the evaluation's page shows.
COLUMNS = {
    "quantile": ["quantile_0.1", "quantile_0.5", "quantile_0.9"],
    "multioutput": ["prediction_power", "prediction_heat"],
    "multilabel": [f"{kind}_{label}" for kind in ("prediction", "probability") for label in LABELS["multilabel"]],
    "ranking": ["score"],
    "multiclass": ["prediction", *(f"probability_{n}" for n in range(4))],
    "regression": ["prediction"],
}
BOUNDS = {
    "quantile": {"loss": (0.1, 0.2), "coverage": (0.7, 0.9)},
    "multioutput": {"loss": (0.1, 0.4), "loss/power": (0.1, 0.4), "loss/heat": (0.1, 0.6), "mae": (0.2, 0.5)},
    "multilabel": {"auc": (0.7, 0.95), "auc_micro": (0.7, 0.95), "auc/late": (0.7, 0.95), "loss": (0.2, 0.5)},
    "ranking": {"ndcg_10": (0.85, 0.97), "ndcg_5": (0.8, 0.97), "ndcg": (0.85, 0.98), "map": (0.8, 0.98), "loss": (1.0, 2.5)},
    "multiclass": {"accuracy": (0.6, 0.9), "loss": (0.4, 0.9)},
    "regression": {"loss": (0.2, 0.9), "mae": (0.3, 0.7)},
}
PAGE = {
    "quantile": ["Calibration of the quantiles", "coverage"],
    "multioutput": ["loss/power", "mae/heat"],
    "multilabel": ["auc_micro", "accuracy/damaged"],
    "ranking": ["Mean relevance by rank", "ndcg_10"],
    "multiclass": ["Confusion matrix", "accuracy"],
    "regression": ["mae"],
}
SMALL = ["--set", "trainer.hyperparameters.epochs=4", "--set", "trainer.hyperparameters.learning_rate=0.01"]


def config(task, folder):
    """Writes the pipeline of a task and its data."""
    data = {"splits": write(DATA.get(task, task), folder), "exclude": ["query_id"] if task == "multiclass" else []}
    document = {"name": f"a_{task}", "task": task, "data": data, **CONFIGS[task]}
    document["evaluation"] = {"slices": ["city"]}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(document))
    return folder / "pipeline.yaml"


@pytest.fixture(scope="module", params=CONFIGS)
def ran(request, warm, tmp_path_factory):
    """The task, its folder and its run of both networks and of trees, each with a search of two trials."""
    folder = tmp_path_factory.mktemp(request.param)
    space = {"learning_rate": [0.003, 0.01], "trees.leaves": [7, 15]}
    trees = ["--trainer", "lightgbm", "--set", "trainer.trees.rounds=60"]
    tune = yaml.safe_dump({"space": space, "trials": 2}, default_flow_style=True, width=1000).strip()
    done = warm.run(config(request.param, folder), folder / "w", *BOTH, *trees, "--set", f"tune={tune}", *SMALL)
    return request.param, folder, done.json


def test_all_trainers_are_searched_trained_evaluated_served_and_promoted(ran):
    task, _, result = ran
    assert result["status"] == "blessed"
    assert result["model_version"] == result["champion"]
    assert {"tuning_tensorflow", "tuning_pytorch", "data_gate", "infra_validation", "report"} <= result["stages"].keys()
    for trainer in ("tensorflow", "pytorch", "lightgbm"):
        for metric, (low, high) in BOUNDS[task].items():
            assert low < result["models"][trainer]["metrics"][metric] < high, (trainer, metric)


def test_every_task_has_its_slices_intervals_and_plots(ran):
    task, folder, _ = ran
    [evaluation] = (folder / "w" / "artifacts" / "evaluation" / "evaluation").iterdir()
    stored = json.loads((evaluation / "metrics.json").read_text())
    for model in stored["models"].values():
        assert {"city=basel", "city=bern", "city=chur"} <= model["slices"].keys()
        for metric in BOUNDS[task]:
            assert model["slices"]["city=chur"][metric] is not None
            low, high = model["intervals"][metric]
            assert low < model["metrics"][metric] < high
    page = (evaluation / "evaluation.html").read_text()
    assert [words for words in PAGE[task] if words not in page] == []


def test_a_file_is_predicted_and_the_signature_names_its_columns(ran, warm):
    task, folder, _ = ran
    done = warm("predict", f"a_{task}@champion", folder / "test.csv", "-o", folder / "out.csv", "--workspace", folder / "w")
    assert done.code == 0, done.stderr
    rows, predicted = pd.read_csv(folder / "test.csv"), pd.read_csv(folder / "out.csv")
    assert list(predicted.columns) == [*rows.columns, *COLUMNS[task]]
    if task == "quantile":
        assert (np.diff(predicted[COLUMNS[task]].to_numpy(), axis=1) >= 0).all()
    if task == "multilabel":
        for label in LABELS[task]:
            assert (predicted[f"prediction_{label}"] == (predicted[f"probability_{label}"] >= 0.5)).all()
    bundle = next((folder / "w" / "artifacts" / "training_pytorch" / "model").glob("*/Format-Serving"))
    assert [o.name for o in Model.load(str(bundle)).signature.outputs] == COLUMNS[task]


def test_the_next_run_is_compared_with_the_champion_and_both_on_rows_of_a_file(ran, warm):
    task, folder, first = ran
    again = warm("run", folder / "pipeline.yaml", "--workspace", folder / "w", "--json", "--trainer", "pytorch", *SMALL)
    assert again.code in (0, 4), again.stderr
    assert again.json["models"].keys() == {"pytorch", "champion"}
    assert again.json["stages"]["transform"]["status"] == "cached"
    versions = first["model_version"], again.json["model_version"]
    compared = warm(
        "models", "compare", f"a_{task}", *versions, "--data", folder / "test.csv", "--json", "--workspace", folder / "w"
    )
    assert compared.code == 0, compared.stderr
    metrics = json.loads(compared.stdout)["metrics"]
    for metric in BOUNDS[task]:
        assert metrics[versions[0]][metric] == pytest.approx(first["metrics"][metric], abs=1e-6)


@pytest.mark.parametrize("task", CONFIGS)
def test_kubeflows_local_runner_measures_the_same(task, warm, tmp_path):
    path = config(task, tmp_path)
    arguments = ["--trainer", "pytorch", *SMALL, *NO_CONTEST]
    here = warm.run(path, tmp_path / "w", *arguments).json
    there = warm.run(path, tmp_path / "kfp", "--runner", "kfp-local", *arguments).json
    assert there["metrics"] == pytest.approx(here["metrics"], abs=1e-6)


@pytest.fixture(scope="module")
def listed(warm, tmp_path_factory):
    """A folder with two runs of both trainers, on columns of 0 and 1 and on lists of the same classes, and their results."""
    tmp_path = tmp_path_factory.mktemp("listed")
    columns = config("multilabel", tmp_path)
    document = yaml.safe_load(columns.read_text())
    classes = sorted(LABELS["multilabel"])
    columns.write_text(yaml.safe_dump({**document, "label": classes}))
    for split, path in document["data"]["splits"].items():
        rows = pd.read_csv(path)
        tags = ["|".join(c for c in classes if row[c]) or "[]" for row in rows.to_dict("records")]
        rows.drop(columns=classes).assign(tags=tags).to_csv(tmp_path / f"listed_{split}.csv", index=False)
    splits = {split: str(tmp_path / f"listed_{split}.csv") for split in document["data"]["splits"]}
    lists = {**document, "name": "listed", "label": "tags", "data": {"splits": splits, "label_separator": "|"}}
    lists["evaluation"] = {"thresholds": {"auc/late": {"lower_bound": 0.5}}}
    (tmp_path / "listed.yaml").write_text(yaml.safe_dump(lists))
    of_columns = warm.run(columns, tmp_path / "w", *BOTH, *SMALL, *NO_CONTEST).json
    of_lists = warm.run(tmp_path / "listed.yaml", tmp_path / "w", *BOTH, *SMALL).json
    return tmp_path, of_columns, of_lists


@pytest.mark.timeout(1200)  # three runs
def test_listed_classes_are_trained_as_columns_of_0_and_1_are(listed, warm):
    """In both frameworks, up to `predict` and the comparison on rows of a file."""
    tmp_path, of_columns, of_lists = listed
    classes, test = sorted(LABELS["multilabel"]), tmp_path / "listed_test.csv"
    assert of_lists["status"] == "blessed"
    for trainer in ("tensorflow", "pytorch"):
        expected = of_columns["models"][trainer]["metrics"]
        assert of_lists["models"][trainer]["metrics"] == pytest.approx(expected, abs=1e-6)
    done = warm("predict", "listed@champion", test, "-o", tmp_path / "out.csv", "--workspace", tmp_path / "w")
    assert done.code == 0, done.stderr
    predicted = [f"{kind}_{label}" for kind in ("prediction", "probability") for label in classes]
    assert list(pd.read_csv(tmp_path / "out.csv").columns)[-6:] == predicted
    other = ["--trainer", "pytorch", *SMALL, "--set", "trainer.hyperparameters.seed=3"]
    again = warm("run", tmp_path / "listed.yaml", "--workspace", tmp_path / "w", "--json", *other)
    assert again.code in (0, 4), "a version, which may be too little better than the champion"
    versions = of_lists["model_version"], again.json["model_version"]
    compared = warm("models", "compare", "listed", *versions, "--data", test, "--json", "--workspace", tmp_path / "w")
    assert compared.code == 0, compared.stderr
    measured = json.loads(compared.stdout)["metrics"][versions[0]]
    assert measured["auc"] == pytest.approx(of_lists["metrics"]["auc"], abs=1e-6)
