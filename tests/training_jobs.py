"""Trainings in separate processes on the output of one pipeline run."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.command import REPOSITORY, switchyard

# Deterministic models: the default ones drop out units.
TORCH_MODEL = """
import torch


class Model(torch.nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.names = [f.name for f in spec.features]
        self.tables = torch.nn.ModuleDict(
            {str(i): torch.nn.Embedding(f.vocabulary_size, 4) for i, f in enumerate(spec.features) if f.vocabulary_size}
        )
        width = sum(4 if f.vocabulary_size else 1 for f in spec.features)
        self.layers = torch.nn.Sequential(torch.nn.Linear(width, 16), torch.nn.ReLU(), torch.nn.Linear(16, spec.outputs))
        self.idle = torch.nn.Linear(2, 2)  # DDP must not mind

    def forward(self, features):
        parts = [
            self.tables[str(i)](features[name]).flatten(1) if str(i) in self.tables else features[name].float()
            for i, name in enumerate(self.names)
        ]
        return self.layers(torch.cat(parts, 1))


def build_model(spec):
    return Model(spec)
"""
KERAS_MODEL = """
import keras


def build_model(spec):
    inputs, parts = {}, []
    for feature in spec.features:
        value = inputs[feature.name] = keras.Input(feature.shape, dtype=feature.dtype, name=feature.name)
        if feature.vocabulary_size:
            value = keras.layers.Flatten()(keras.layers.Embedding(feature.vocabulary_size, 4)(value))
        parts.append(value)
    hidden = keras.layers.Dense(16, activation="relu")(keras.layers.Concatenate()(parts))
    return keras.Model(inputs, keras.layers.Dense(spec.outputs)(hidden))
"""
# Trains what was prepared by a run, and writes the TrainResult down.
TRAIN = """
import json, sys
from switchyard.components.import_order import import_torch_first
import_torch_first()  # as in a stage's process
from dataclasses import asdict
from pathlib import Path
from switchyard.components.training.job import TrainingJob
from switchyard.components.training.workers.group import train

job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_text())
result = train(job, lambda step, metrics: print("STEP", step, flush=True))
Path(job.state, "result.json").write_text(json.dumps(asdict(result)))
"""


def run_once(folder):
    """Runs a pipeline with both trainers on two workers in `folder`, with a model of each framework beside it."""
    random = np.random.default_rng(0)
    rows = 1301  # the splits' rows are shared unequally by 2 and by 3
    data = pd.DataFrame({"a": random.normal(size=rows), "b": random.normal(size=rows), "c": random.choice(list("xyz"), rows)})
    score = 2 * data.a - data.b + (data.c == "x") + random.normal(size=rows) / 2
    data.assign(y=np.where(score > 0, "yes", "no")).to_csv(folder / "data.csv", index=False)
    (folder / "torch_model.py").write_text(TORCH_MODEL)
    (folder / "keras_model.py").write_text(KERAS_MODEL)
    (folder / "pipeline.yaml").write_text(
        "name: workers\ndata: {path: data.csv, splits: {train: 0.8, eval: 0.2}}\nlabel: y\n"
        "serving: {infra_validation: null}\ntrainer:\n"
        "  framework: [tensorflow, pytorch]\n  accelerator: cpu:2\n"
        "  model: {tensorflow: keras_model.py, pytorch: torch_model.py}\n"
        "  hyperparameters: {epochs: 3, batch_size: 36, learning_rate: 0.01, seed: 1, early_stopping: null}\n"
    )
    done = switchyard("run", "pipeline.yaml", cwd=folder)
    assert done.code == 0, done.stdout + done.stderr  # a model was blessed


def prepare_weighted(folder):
    """Writes what ingest and transform do of two labels and weights, and the models, into `folder`, without a run."""
    from switchyard.components.data.feature_spec import FeatureSpec
    from switchyard.components.data.summary import DatasetSummary
    from switchyard.components.training.columns import FILE, WEIGHTS, ColumnsWriter, features_json
    from switchyard.components.training.example_source import blocks
    from switchyard.components.training.examples import columns_of

    specs, rows = [FeatureSpec(name, "float32", (1,)) for name in "ab"], {"train": 1041, "eval": 260}
    examples, transformed = (
        folder / ".switchyard" / "artifacts" / p / "1" for p in ("ingest/examples", "transform/transformed_examples")
    )
    examples.mkdir(parents=True)
    kinds = {"a": "float", "b": "float", "y1": "integer", "y2": "integer", "w": "float"}
    labels = {"targets": ["y1", "y2"], "sample_weight": "w"}
    DatasetSummary("f", [], kinds, {}, rows, 0, [], [], "y1,y2", "multilabel", [], {}, **labels).save(str(examples))
    for seed, (split, count) in enumerate(rows.items()):
        random = np.random.default_rng(seed)
        features = {name: random.normal(size=(count, 1)).astype(np.float32) for name in "ab"}
        label = np.concatenate([features["a"] > features["b"], features["a"] > 0], axis=1).astype(np.float32)
        (transformed / f"Split-{split}").mkdir(parents=True)
        with (transformed / f"Split-{split}" / "examples.arrow").open("wb") as file:
            writer = ColumnsWriter(file, (*blocks(specs), WEIGHTS), "float32", (2,))
            writer.write(columns_of(features, label, specs, random.integers(0, 4, count)))
            writer.close()
    (transformed / FILE).write_text(features_json(specs, weighted=True))
    (transformed / "vocabularies.json").write_text("{}")
    (folder / "torch_model.py").write_text(TORCH_MODEL)
    (folder / "keras_model.py").write_text(KERAS_MODEL)


def job(prepared, state, framework, accelerator, *, started=None, freeze=(), **hyper):
    folder = prepared

    def uri(pattern):
        return str(max((folder / ".switchyard" / "artifacts").glob(pattern)))

    model = folder / ("torch_model.py" if framework == "pytorch" else "keras_model.py")
    given = {"epochs": 3, "steps": None, "batch_size": 36, "learning_rate": 0.01, "optimizer": "adam", "seed": 1}
    given |= {"schedule": "constant", "warmup_steps": 0, "weight_decay": None, "clip_norm": None, "label_smoothing": 0.0}
    given["accumulate_steps"] = 1
    settings = {
        "version": "0",
        "bundle": 0,
        "own_preprocessing": False,
        "framework": framework,
        "code": {"path": str(model), "function": "build_model"},
        "model_parameters": {},
        "loss": None,
        "loss_code": None,
        "loss_parameters": {},
        "hyperparameters": {**given, "early_stopping": None, "class_weights": None, **hyper},
        "accelerator": {"kind": "cpu", **accelerator},
        "freeze": list(freeze),
    }
    parts = {
        "settings": settings,
        "examples": uri("ingest/examples/*"),
        "transformed_examples": uri("transform/transformed_examples/*"),
        "state": str(state),
        "start": str(started) if started else None,
    }
    state.mkdir(parents=True, exist_ok=True)
    (state / "given.json").write_text(json.dumps(parts))
    return [sys.executable, "-c", TRAIN, str(state / "given.json")]


def start(command, state, **environment):
    with (state / "log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )


def starting_point(prepared, state, framework):
    """Trains one epoch alone; returns the starting point that a registered version of it would give, in a folder."""
    from switchyard.components.training.start import WEIGHTS, Origin

    train(prepared, state, framework, {}, epochs=1)
    folder = state / "start"
    folder.mkdir()
    shutil.copy(state / "export" / WEIGHTS, folder)
    (folder / "vocabularies.json").write_text("{}")
    Origin("m", "1", "", framework, "multilabel", (), ("y1", "y2"), ("a", "b")).save(folder)
    return folder


def train(prepared, state, framework, accelerator, **hyper):
    process = start(job(prepared, state, framework, accelerator, **hyper), state)
    process.communicate(timeout=400)
    assert process.returncode == 0, (state / "log").read_text()[-3000:]
    return json.loads((state / "result.json").read_text())


def same_curve(one, many):
    assert len(one["history"]) == len(many["history"])
    for a, b in zip(one["history"], many["history"], strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            # One row of 245 on the other side of the threshold is 0.004 of accuracy.
            assert b[name] == pytest.approx(value, abs=1e-4 if name.endswith("loss") else 5e-3), name


def after_third_epoch(process):
    # An epoch is reported before its checkpoint is whole: two of them are.
    for _ in range(3):
        assert process.stdout.readline().startswith("STEP"), "it ended before its third epoch"
