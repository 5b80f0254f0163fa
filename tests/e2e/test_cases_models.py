"""Models as people bring them, through the command line: trained and served as they are, or refused before training."""

import numpy as np
import pandas as pd
import pytest

KERAS = """
import keras


def build_model(spec):
    inputs = {f.name: keras.Input(f.shape, name=f.name, dtype=f.dtype) for f in spec.features}
    x = keras.layers.Concatenate()([keras.ops.cast(v, "float32") for v in inputs.values()])
    model = keras.Model(inputs, END)
    AFTER
    return model
"""
TORCH = """
import torch
from torch import nn


class Net({base}):
    def __init__(self, spec):
        super().__init__()
        self.names = [f.name for f in spec.features]
        self.layers = nn.Sequential({layers})

    def forward(self, features):
        x = self.layers(torch.cat([features[n].float() for n in self.names], 1))
        return {end}


def build_model(spec):
    return Net(spec)
"""


def torch_model(layers="nn.Linear(len(self.names), 1)", end="x", base="nn.Module"):
    return TORCH.format(layers=layers, end=end, base=base)


def keras_model(end="keras.layers.Dense(1)(x)", after=""):
    return KERAS.replace("END", end).replace("AFTER", after)


def table(rows, seed=22):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=rows), rng.normal(size=rows)
    y = (rng.random(rows) < 1 / (1 + np.exp(-3 * a))).astype(int)
    return pd.DataFrame({"a": a.round(4), "b": b.round(4), "y": y})


@pytest.fixture
def project(tmp_path, warm):
    """Returns a function: files and the rest of the YAML -> the run's outcome."""

    def run(files, yaml, expect, rows=600, frame=None):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        (table(rows) if frame is None else frame).to_csv(tmp_path / "d.csv", index=False)
        (tmp_path / "pipeline.yaml").write_text(f"name: models\ndata: {{path: d.csv}}\nlabel: y\n{yaml}\n")
        return warm.run(tmp_path / "pipeline.yaml", tmp_path / "w", expect=expect)

    return run


def trained(done):
    return [line for line in done.stderr.splitlines() if "epoch 1 of" in line]


def trainer(framework, file, **hyperparameters):
    settings = ", ".join(f"{k}: {v}" for k, v in {"epochs": 3, **hyperparameters}.items())
    return f"trainer: {{framework: {framework}, model: {file}, hyperparameters: {{{settings}}}}}"


REFUSED = {
    "sigmoid at the end, Keras": ("tensorflow", keras_model("keras.layers.Dense(1, activation='sigmoid')(x)"), "ends in sigmoid"),
    "sigmoid at the end, PyTorch": (
        "pytorch",
        torch_model("nn.Linear(len(self.names), 1), nn.Sigmoid()"),
        "ends in sigmoid",
    ),
    "eager, Keras": (
        "tensorflow",
        keras_model(after="model.compile(optimizer=keras.optimizers.SGD(0.05), loss='mse', run_eagerly=True)"),
        "Remove it from compile().",
    ),
    "late export error, PyTorch": (
        "pytorch",
        torch_model(end="x if x.sum().item() > -1e9 else -x"),
        "torch.export cannot export the model",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_cannot_be_served_correctly_is_refused_before_training(case, project):
    framework, model, message = REFUSED[case]
    done = project({"model.py": model}, trainer(framework, "model.py"), expect=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert trained(done) == []


def test_a_last_batch_of_one_row_trains_beside_batch_normalization(project):
    model = torch_model("nn.Linear(len(self.names), 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)")
    yaml = trainer("pytorch", "model.py", batch_size=32, epochs=20, learning_rate=0.02)
    done = project({"model.py": model}, f"{yaml}\nevaluation: {{thresholds: {{auc: {{lower_bound: 0.7}}}}}}", expect=0, rows=321)
    assert done.json["metrics"]["auc"] > 0.7


def test_a_logarithm_of_positive_amounts_is_served_and_checked_with_rows_of_the_data(project):
    frame = table(600)
    frame["amount"] = np.exp(frame.a * 2 + 5).round(2)
    features = (
        "import tensorflow as tf\n\n\ndef preprocessing_fn(inputs):\n"
        "    return {'amount': tf.math.log(inputs['amount']), 'b': inputs['b']}\n"
    )
    yaml = "preprocessing: features.py\ntrainer: {framework: pytorch, hyperparameters: {epochs: 5}}"
    done = project({"features.py": features}, yaml, expect=0, frame=frame.drop(columns="a"))
    assert done.json["status"] == "blessed"


def test_a_file_beside_the_code_is_available_when_the_code_runs(project):
    features = (
        "from pathlib import Path\n\nCOLUMNS = (Path(__file__).parent / 'columns.txt').read_text().split()\n\n\n"
        "def preprocessing_fn(inputs):\n    return {name: inputs[name] for name in COLUMNS}\n"
    )
    yaml = "preprocessing: features.py\ntrainer: {framework: pytorch, hyperparameters: {epochs: 5}}"
    done = project({"features.py": features, "columns.txt": "a\nb\n"}, yaml, expect=0)
    assert done.json["status"] == "blessed"
