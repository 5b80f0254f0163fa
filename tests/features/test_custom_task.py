"""A task of the user's own: masks, a label and an output of two dimensions, and the example of anomalies, without a label."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import Model
from sklearn.metrics import roc_auc_score

from switchyard.components.bundle.model import load_bundle
from switchyard.pipelines.examples import make_data
from tests.command import EXAMPLES

BOTH = ["--trainer", "tensorflow", "--trainer", "pytorch"]
ANOMALIES = EXAMPLES / "anomalies"
# The mask of an image of 4 x 4 pixels: where it is brighter than its row's mean.
TORCH = """
from torch import nn

class Masks(nn.Module):
    def __init__(self, name, outputs):
        super().__init__()
        self.name, self.layers = name, nn.Sequential(nn.Linear(outputs, 64), nn.ReLU(), nn.Linear(64, outputs), nn.Sigmoid())

    def forward(self, features):
        return self.layers(features[self.name]).reshape(-1, 4, 4)

def build_model(spec):
    assert (spec.output_shape, spec.label_shape, spec.outputs) == ((4, 4), (4, 4), 16)
    [image] = [f for f in spec.features if f.shape == (16,)]
    return Masks(image.name, spec.outputs)

def build_loss(spec):
    return lambda labels, outputs: ((outputs - labels) ** 2).mean(dim=(1, 2))
"""
KERAS = """
import keras

def build_model(spec):
    assert (spec.output_shape, spec.label_shape, spec.outputs) == ((4, 4), (4, 4), 16)
    inputs = {f.name: keras.Input(f.shape, name=f.name, dtype=f.dtype) for f in spec.features}
    [image] = [f for f in spec.features if f.shape == (16,)]
    x = keras.layers.Dense(64, activation="relu")(inputs[image.name])
    x = keras.layers.Dense(spec.outputs, activation="sigmoid")(x)
    return keras.Model(inputs, keras.layers.Reshape(spec.output_shape)(x))

def build_loss(spec):
    return lambda labels, outputs: keras.ops.mean((outputs - labels) ** 2, axis=(1, 2))
"""
METRICS = """
import numpy as np

def overlap(labels, scores):
    assert labels.shape == scores.shape and scores.shape[1:] == (4, 4)
    called = scores > 0.5
    return (called & (labels == 1)).sum() / (called | (labels == 1)).sum()
"""


def masks(folder):
    """Writes the pipeline and its data: masks are lists of lists."""
    images = np.random.default_rng(0).normal(size=(600, 4, 4)).round(3)
    found = images > images.mean(axis=2, keepdims=True)
    rows = [
        {"image": image.ravel().tolist(), "mask": mask.astype(int).tolist(), "camera": ["left", "right"][number % 2]}
        for number, (image, mask) in enumerate(zip(images, found, strict=True))
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in {"torch_model.py": TORCH, "keras_model.py": KERAS, "metrics.py": METRICS}.items():
        (folder / name).write_text(text)
    document = {
        "name": "masks",
        "data": {"path": "data.jsonl"},
        "label": "mask",
        "task": "custom",
        "trainer": {
            "output_shape": [4, 4],
            "model": {"tensorflow": "keras_model.py", "pytorch": "torch_model.py"},
            "hyperparameters": {"epochs": 30, "learning_rate": 0.01},
        },
        "evaluation": {
            "metrics": "metrics.py",
            "improvement": {"metric": "overlap", "better": "higher"},
            "thresholds": {"overlap": {"lower_bound": 0.5, "per_slice": True}},
            "slices": ["camera"],
            "min_slice_examples": 20,
        },
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(document))
    return folder / "pipeline.yaml"


@pytest.fixture(scope="module")
def ran(tmp_path_factory, warm):
    """The folder of the masks and the run of both trainers, each with a search of two trials."""
    folder = tmp_path_factory.mktemp("masks")
    tune = "tune={space: {learning_rate: [0.003, 0.01]}, trials: 2}"
    return folder, warm.run(masks(folder), folder / "w", *BOTH, "--set", tune).json


def test_both_trainers_learn_masks_and_are_measured_by_the_users_metric(ran):
    folder, result = ran
    assert result["status"] == "blessed"
    found = {name: model["metrics"]["overlap"] for name, model in result["models"].items()}
    assert min(found.values()) > 0.6
    assert abs(found["tensorflow"] - found["pytorch"]) < 0.05, found
    [evaluation] = (folder / "w" / "artifacts" / "evaluation" / "evaluation").iterdir()
    stored = json.loads((evaluation / "metrics.json").read_text())
    for model in stored["models"].values():
        low, high = model["intervals"]["overlap"]
        assert low < model["metrics"]["overlap"] < high
        slices = [model["slices"][f"camera={side}"]["overlap"] for side in ("left", "right")]
        assert min(slices) < model["metrics"]["overlap"] < max(slices)
    [verdict] = (folder / "w").glob("artifacts/infra_validation/blessing/*/infra_validation.json")
    assert all(served["difference"] <= 1e-5 and served["rows"] for served in json.loads(verdict.read_text()).values())


def test_predictions_are_lists_in_parquet_and_json_lines_and_refused_in_csv(ran, warm, tmp_path):
    folder, result = ran
    rows = pd.read_json(folder / "data.jsonl", lines=True).head(20)
    rows[["image", "camera"]].to_parquet(tmp_path / "new.parquet")
    model = "masks@champion", tmp_path / "new.parquet"
    bundle = next((folder / "w" / "artifacts" / f"training_{result['trainer']}" / "model").glob("*/Format-Serving"))
    expected = load_bundle(bundle).scores(rows[["image", "camera"]]).reshape(20, 4, 4)
    for name, read in {"out.parquet": pd.read_parquet, "out.jsonl": lambda f: pd.read_json(f, lines=True)}.items():
        done = warm("predict", *model, "-o", tmp_path / name, "--workspace", folder / "w")
        assert done.code == 0, done.stderr
        found = [[list(line) for line in mask] for mask in read(tmp_path / name)["prediction"]]
        np.testing.assert_allclose(np.array(found), expected, atol=1e-5)
    done = warm("predict", *model, "-o", tmp_path / "out.csv", "--workspace", folder / "w")
    assert done.code == 2
    assert "a prediction of this model is a list of shape [4, 4], which csv does not hold" in done.stderr
    [output] = Model.load(str(bundle)).signature.outputs
    assert (output.name, str(output.type)) == ("prediction", "Array(Array(double))")


def test_the_next_model_is_compared_with_the_champion_unless_its_output_has_another_shape(ran, warm):
    folder, _ = ran
    again = warm.run(folder / "pipeline.yaml", folder / "w", "--trainer", "pytorch", expect=4).json
    assert again["models"].keys() == {"pytorch", "champion"}
    command = [
        "models",
        "compare",
        "masks",
        "champion",
        "challenger",
        "--data",
        folder / "data.jsonl",
        "--workspace",
        folder / "w",
    ]
    compared = warm(*command, "--metrics", folder / "metrics.py", "--json")
    assert compared.code == 0, compared.stderr
    found = json.loads(compared.stdout)
    first, second = (metrics["overlap"] for metrics in found["metrics"].values())
    change, (low, high) = found["changes"]["overlap"]
    assert change == pytest.approx(second - first)
    assert low <= change <= high
    refused = warm(*command)
    assert refused.code == 2
    assert "give the file by --metrics FILE" in refused.stderr
    other = ["--set", "trainer.output_shape=[16]", "--set", "trainer.model=null", "--set", "trainer.loss=flat.py:flat"]
    (folder / "flat.py").write_text("def flat(labels, outputs): return ((outputs - labels) ** 2).mean(1)\n")
    (folder / "metrics.py").write_text("def overlap(labels, scores): return ((scores > 0.5) == labels).mean()\n")
    flat = warm.run(folder / "pipeline.yaml", folder / "w", "--trainer", "pytorch", *other, expect=4).json
    assert flat["models"].keys() == {"pytorch"}
    (folder / "metrics.py").write_text(METRICS)


def test_kubeflows_local_runner_measures_the_same(warm, tmp_path):
    path = masks(tmp_path)
    arguments = ["--trainer", "pytorch", "--set", "trainer.hyperparameters.epochs=4"]
    arguments += ["--set", "evaluation.thresholds.overlap.lower_bound=0"]
    here = warm.run(path, tmp_path / "w", *arguments).json
    there = warm.run(path, tmp_path / "kfp", "--runner", "kfp-local", *arguments).json
    assert there["metrics"] == pytest.approx(here["metrics"], abs=1e-5)


def test_the_anomalies_are_found_by_both_frameworks_without_a_label(warm, tmp_path):
    result = warm.run(ANOMALIES / "pipeline.yaml", tmp_path / "w", *BOTH).json
    assert result["status"] == "blessed"
    for name, model in result["models"].items():
        assert model["metrics"]["median_error"] < 0.1
        bundle = next((tmp_path / "w" / "artifacts" / f"training_{name}" / "model").glob("*/Format-Serving"))
        done = warm("predict", bundle, ANOMALIES / "new.csv", "-o", tmp_path / f"{name}.csv", "--trust")
        assert done.code == 0, done.stderr
        scored = pd.read_csv(tmp_path / f"{name}.csv")
        assert roc_auc_score(scored["fault"], scored["prediction"]) > 0.9


def test_the_readings_are_made_by_a_seed():
    pd.testing.assert_frame_equal(pd.read_csv(ANOMALIES / "data.csv"), make_data.readings())
    pd.testing.assert_frame_equal(pd.read_csv(ANOMALIES / "new.csv"), make_data.readings(500, faults=0.1, seed=43))
