"""The examples through the command line: both trainers and a third one, cache, registry, bundle, parity."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.models import Model

from switchyard.pipelines.examples import make_data
from tests.command import ANEW, BEFORE_TRAINING, BREAST_CANCER, EXAMPLES, NO_CONTEST, STAGES, TRAINERS, environment, settings_of


@pytest.fixture(scope="module")
def client(workspace, runs):
    return MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")


def artifact(workspace, stage, key):
    folder = workspace / "artifacts" / stage / key
    return sorted(folder.iterdir(), key=lambda p: int(p.name))


@pytest.mark.core
@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_trainer_reaches_the_auc_and_is_registered(trainer, runs):
    result = runs[trainer].json
    assert result["status"] == "blessed"
    assert result["blessed"] is True
    assert result["pipeline"] == "breast_cancer"
    assert result["trainer"] == trainer
    assert result["metrics"]["auc"] >= 0.98
    assert set(result["metrics"]) >= {"accuracy", "auc", "loss", "example_count"}
    assert sorted(result["stages"]) == sorted(STAGES)
    assert result["model_version"] is not None


@pytest.mark.core
def test_stages_before_the_trainer_are_shared_by_all_trainers(runs):
    shared = set(BEFORE_TRAINING) - ANEW
    assert all(s == "ran" for s in runs["tensorflow"].stages.values())
    for other in ("pytorch", "sklearn"):
        assert {runs[other].stages[s] for s in shared} == {"cached"}
        assert runs[other].stages["training"] == "ran"


@pytest.mark.core
def test_a_second_identical_run_trains_nothing(runs, workspace, warm):
    again = warm.run(BREAST_CANCER, workspace, "--trainer", "pytorch", *NO_CONTEST)
    assert {n for n, s in again.stages.items() if s != "cached"} == ANEW
    assert again.json["metrics"] == runs["pytorch"].json["metrics"]
    assert again.json["model_version"] == runs["pytorch"].json["model_version"]
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    children = client.search_runs(
        [again.json["mlflow_experiment_id"]], f"tags.mlflow.parentRunId = '{again.json['mlflow_run_id']}'"
    )
    training = next(r for r in children if r.info.run_name == "training")
    assert training.data.tags["switchyard.status"] == "cached"
    producer_run_id = client.get_run(training.data.tags["switchyard.cached_from_run"])
    assert producer_run_id.data.tags["mlflow.parentRunId"] == runs["pytorch"].json["mlflow_run_id"]


def test_the_champion_run_again_stays_champion(runs, workspace, warm):
    """With the comparison: the champion is not asked to be better than itself."""
    champion = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}").get_model_version_by_alias("breast_cancer", "champion")
    # Any of the three may be the best one: by how much, depends on the machine.
    again = warm.run(BREAST_CANCER, workspace, *settings_of(champion.tags["framework"]))
    assert again.json["champion"] == again.json["model_version"] == str(champion.version)
    assert again.stages["training"] == "cached"


def test_a_changed_hyperparameter_reruns_training_and_the_stages_after_it(runs, workspace, warm):
    other = ["--set", "trainer.hyperparameters.learning_rate=0.003", "--set", "serving.model_name=other"]
    changed = warm.run(BREAST_CANCER, workspace, *other, *NO_CONTEST)
    assert {n for n, s in changed.stages.items() if s == "ran"} == {"training", "infra_validation"} | ANEW


@pytest.mark.core
def test_mlflow_holds_parameters_metrics_and_stages_of_a_run(runs, client):
    result = runs["pytorch"].json
    parent = client.get_run(result["mlflow_run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["auc"] == pytest.approx(result["metrics"]["auc"])
    assert parent.data.params["learning_rate"] == "0.001"
    assert "data.csv" in parent.data.params["data.path"]
    assert parent.data.tags["mlflow.note.content"].startswith(("**Blessed.**", "**Not blessed.**"))
    inputs = {i.tags[0].value: i.dataset for i in parent.inputs.dataset_inputs}
    assert sorted(inputs) == ["testing", "training", "validation"]
    assert json.loads(inputs["training"].profile)["num_rows"] > 300
    assert {"name": "mean_radius", "type": "double"} in json.loads(inputs["training"].schema)["mlflow_colspec"]
    [logged] = [client.get_logged_model(o.model_id) for o in parent.outputs.model_outputs]
    assert logged.name == "breast_cancer-pytorch"
    assert {m.key: m.value for m in logged.metrics}["auc"] == pytest.approx(result["metrics"]["auc"])
    assert "mlflow.source.git.commit" in parent.data.tags
    assert "config/pipeline.yaml" in [f.path for f in client.list_artifacts(parent.info.run_id, "config")]
    children = client.search_runs([result["mlflow_experiment_id"]], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    by_name = {c.info.run_name: c for c in children}
    assert sorted(by_name) == sorted(STAGES)
    assert all(c.info.status == "FINISHED" for c in children)
    history = client.get_metric_history(by_name["training"].info.run_id, "val_loss")
    assert [m.step for m in history] == list(range(1, len(history) + 1))
    assert len(history) >= 5
    assert any(k.startswith("system/") for k in by_name["training"].data.metrics)


@pytest.mark.core
def test_mlflow_holds_self_contained_pages(runs, client, tmp_path):
    first = runs["tensorflow"].json
    children = client.search_runs([first["mlflow_experiment_id"]], f"tags.mlflow.parentRunId = '{first['mlflow_run_id']}'")
    ids = {c.info.run_name: c.info.run_id for c in children} | {"pipeline": first["mlflow_run_id"]}
    for stage, path, words in [
        ("statistics", "statistics/statistics.html", ["worst_radius", "<svg", "missing"]),
        ("data_gate", "data_gate/data_gate.html", ["Data gate", "passed"]),
        ("evaluation", "evaluation/evaluation.html", ["Blessed", "ROC", "Confusion matrix"]),
        (
            "pipeline",
            "report/report.html",
            ["Model gate", "Data gate", "Training", "Lineage", "SHA-256", "Run it again", "<svg", "Distributions", "ROC"],
        ),
    ]:
        page = open(client.download_artifacts(ids[stage], path, str(tmp_path))).read()
        assert [w for w in words if w not in page] == []
        loads = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(https?:[^"')\s>]+)""", page)
        assert loads == []
        assert "<script" not in page


@pytest.mark.core
def test_each_run_is_a_version_of_the_registered_model(runs, client):
    versions = client.search_model_versions("name = 'breast_cancer'")
    frameworks = {str(v.version): v.tags["framework"] for v in versions}
    for trainer, done in runs.items():
        assert frameworks[done.json["model_version"]] == trainer
    assert client.get_model_version_by_alias("breast_cancer", "champion").version is not None


@pytest.mark.core
def test_two_versions_are_compared_on_the_same_rows(runs, workspace, warm):
    first, second = (runs[t].json["model_version"] for t in ("tensorflow", "sklearn"))
    data = EXAMPLES / "breast_cancer" / "data.csv"
    done = warm("models", "compare", "breast_cancer", first, second, "--data", data, "--json", "--workspace", workspace)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == 569
    auc = found["metrics"][second]["auc"] - found["metrics"][first]["auc"]
    assert found["better"]["auc"][0] == pytest.approx(auc)
    low, high = found["better"]["auc"][1]
    assert low <= auc <= high


LOAD = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
rows = pd.read_csv(sys.argv[3]).drop(columns="diagnosis")
out = model.predict(rows)
print(out.to_json(orient="split"))
"""


@pytest.mark.parametrize(
    ("trainer", "first"),
    [
        ("tensorflow", ""),
        pytest.param("pytorch", "", marks=pytest.mark.core),
        ("sklearn", ""),
        pytest.param("pytorch", "import tensorflow\n", id="pytorch, TensorFlow first"),
    ],
)
def test_the_registered_model_loads_without_the_workspace_and_takes_raw_rows(trainer, first, runs, workspace, tmp_path):
    uri = f"models:/breast_cancer/{runs[trainer].json['model_version']}"
    command = [
        sys.executable,
        "-c",
        first + LOAD,
        f"sqlite:///{workspace / 'mlflow.db'}",
        uri,
        EXAMPLES / "breast_cancer" / "data.csv",
    ]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout.splitlines()[-1])
    out = pd.DataFrame(table["data"], columns=table["columns"])
    truth = pd.read_csv(EXAMPLES / "breast_cancer" / "data.csv")["diagnosis"]
    assert list(out.columns) == ["prediction", "probability"]
    assert (out["prediction"] == truth).mean() > 0.93


@pytest.mark.core
def test_offline_and_bundle_predictions_agree(runs, workspace):
    """The trainer's export on transformed rows against the bundle on raw rows, every row of the eval split."""
    import tensorflow as tf

    from switchyard.components.bundle.model import load_bundle
    from switchyard.components.bundle.rows import to_frame
    from switchyard.components.training.examples import transformed_examples
    from switchyard.components.training.trainers import trainer_class

    [examples] = artifact(workspace, "ingest", "examples")
    [transformed] = artifact(workspace, "transform", "transformed_examples")
    records = [r.numpy() for r in tf.data.TFRecordDataset([str(f) for f in sorted((examples / "Split-eval").iterdir())])]
    features, _ = next(transformed_examples(transformed, "eval").batches(10_000))
    frameworks = set()
    for model in artifact(workspace, "training", "model"):
        bundle = load_bundle(model / "Format-Serving")
        frameworks.add(bundle.info.framework)
        raw = bundle.scores(to_frame(records, bundle.info.features))
        folder = next((model / "Format-Serving" / "artifacts").iterdir())
        own = bundle.info.predictor
        trainer = trainer_class(f"{folder / 'code' / own}" if own.partition(":")[0].endswith(".py") else bundle.info.framework)
        offline = trainer.load_predictor(folder / "model")(features)
        # Transform may write its rows in another order.
        np.testing.assert_allclose(np.sort(raw, axis=0), np.sort(offline, axis=0), atol=1e-5)
    assert frameworks == set(TRAINERS)


@pytest.mark.core
def test_a_bundle_has_a_signature_and_an_input_example(runs, workspace):
    for folder in artifact(workspace, "training", "model"):
        model = Model.load(str(folder / "Format-Serving"))
        assert len(model.signature.inputs.inputs) == 30
        assert [o.name for o in model.signature.outputs.inputs] == ["prediction", "probability"]
        assert model.load_input_example(str(folder / "Format-Serving")).shape == (5, 30)


@pytest.mark.core
def test_a_bundle_has_no_pickle(runs, workspace):
    for model in artifact(workspace, "training", "model"):
        assert not [p for p in model.rglob("*") if p.suffix in (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt")]


def test_a_model_outside_its_threshold_is_not_blessed_and_the_run_ends_with_code_4(runs, workspace, warm):
    done = warm.run(BREAST_CANCER, workspace, "--set", "evaluation.thresholds.loss.upper_bound=0.0001", expect=4)
    assert done.json["status"] == "not_blessed"
    assert done.json["blessed"] is False
    assert done.json["model_version"] is None
    assert "loss is 0.0" in done.json["error"]
    assert "above its upper bound 0.0001" in done.json["error"]
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    assert client.get_run(done.json["mlflow_run_id"]).data.tags["blessed"] == "false"


def test_both_trainers_learn_the_digits(digits):
    _, done = digits
    assert done.json["status"] == "blessed"
    assert set(done.json["models"]) == {"tensorflow", "pytorch"}
    for model in done.json["models"].values():
        assert model["metrics"]["accuracy"] >= 0.95
        assert model["metrics"]["loss"] < 0.3
        assert set(model["metrics"]) >= {"precision_macro", "recall_macro", "f1_macro"}


@pytest.mark.core
def test_the_examples_data_equals_scikit_learns():
    pd.testing.assert_frame_equal(pd.read_csv(EXAMPLES / "breast_cancer" / "data.csv"), make_data.breast_cancer())
    stored = pd.read_parquet(EXAMPLES / "digits" / "data.parquet")
    expected = make_data.digits()
    np.testing.assert_array_equal(np.stack(stored["image"]), np.stack(expected["image"]))
    np.testing.assert_array_equal(stored["digit"], expected["digit"])
