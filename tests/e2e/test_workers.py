"""One training on several workers: the same loss curve, no row lost or seen twice, a worker or the stage killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

from tests.command import REPOSITORY, run, switchyard

pytestmark = pytest.mark.workers
TAXI = REPOSITORY.parent / "shared" / "data" / "chicago_taxi" / "data.csv"
TRAINERS = {"tensorflow", "pytorch"}

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
from dataclasses import asdict
from pathlib import Path
from components.training.job import TrainingJob
from components.training.worker_group import train

job = TrainingJob.from_json(Path(sys.argv[1]).read_text())
result = train(job, lambda step, metrics: print("STEP", step, flush=True))
Path(job.state, "result.json").write_text(json.dumps(asdict(result)))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A pipeline run up to its end; the folder of a model of each framework, and the URIs of what training takes."""
    folder = tmp_path_factory.mktemp("workers")
    random = np.random.default_rng(0)
    rows = 1301  # the splits' rows are shared unequally by 2 and by 3
    data = pd.DataFrame({"a": random.normal(size=rows), "b": random.normal(size=rows), "c": random.choice(list("xyz"), rows)})
    score = 2 * data.a - data.b + (data.c == "x") + random.normal(size=rows) / 2
    data.assign(y=np.where(score > 0, "yes", "no")).to_csv(folder / "data.csv", index=False)
    (folder / "torch_model.py").write_text(TORCH_MODEL)
    (folder / "keras_model.py").write_text(KERAS_MODEL)
    (folder / "pipeline.yaml").write_text(
        "name: workers\ndata: {path: data.csv}\nlabel: y\nserving: {infra_validation: null}\ntrainer:\n"
        "  framework: [tensorflow, pytorch]\n  accelerator: cpu:2\n"
        "  model: {tensorflow: keras_model.py, pytorch: torch_model.py}\n"
        "  hyperparameters: {epochs: 3, batch_size: 36, learning_rate: 0.01, seed: 1, early_stopping: null}\n"
    )
    done = switchyard("run", "pipeline.yaml", cwd=folder)
    assert done.code == 0, done.stdout + done.stderr  # a model was blessed
    return folder


def job(prepared, state, framework, accelerator, **hyper):
    folder = prepared

    def uri(pattern):
        return str(max((folder / ".switchyard" / "artifacts").glob(pattern)))

    model = folder / ("torch_model.py" if framework == "pytorch" else "keras_model.py")
    given = {"epochs": 3, "steps": None, "batch_size": 36, "learning_rate": 0.01, "optimizer": "adam", "seed": 1}
    settings = {
        "framework": framework,
        "code": {"path": str(model), "function": "build_model"},
        "model_parameters": {},
        "hyperparameters": {**given, "early_stopping": None, "class_weights": None, **hyper},
        "accelerator": {"kind": "cpu", **accelerator},
    }
    parts = {
        "settings": settings,
        "examples": uri("ingest/examples/*"),
        "transform_graph": uri("transform/transform_graph/*"),
        "transformed_examples": uri("transform/transformed_examples/*"),
        "state": str(state),
    }
    state.mkdir(parents=True, exist_ok=True)
    (state / "given.json").write_text(json.dumps(parts))
    return [sys.executable, "-c", TRAIN, str(state / "given.json")]


def start(command, state):
    with (state / "log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def train(prepared, state, framework, accelerator, **hyper):
    process = start(job(prepared, state, framework, accelerator, **hyper), state)
    process.communicate(timeout=240)
    assert process.returncode == 0, (state / "log").read_text()[-3000:]
    return json.loads((state / "result.json").read_text())


@pytest.fixture(scope="module")
def alone(prepared, tmp_path_factory):
    made = {}

    def get(framework, **hyper):
        key = framework, tuple(hyper.items())
        if key not in made:
            made[key] = train(prepared, tmp_path_factory.mktemp("alone"), framework, {}, **hyper)
        return made[key]

    return get


def same_curve(one, many):
    assert len(one["history"]) == len(many["history"])
    for a, b in zip(one["history"], many["history"], strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            # One row of 245 on the other side of the threshold is 0.004 of accuracy.
            assert b[name] == pytest.approx(value, abs=1e-4 if name.endswith("loss") else 5e-3), name


def test_one_setting_trains_the_whole_pipeline_on_two_workers(prepared):
    folder = prepared
    results = [
        json.loads(p.read_text()) for p in (folder / ".switchyard" / "artifacts").glob("training_*/model_run/*/result.json")
    ]
    assert [r["workers"] for r in results] == [2, 2]


@pytest.mark.parametrize(
    ("framework", "accelerator"),
    [
        pytest.param("pytorch", {"count": 2}, id="pytorch, DDP, 2 workers"),
        pytest.param("pytorch", {"count": 3}, id="pytorch, DDP, 3 workers"),
        pytest.param("pytorch", {"nodes": 2}, id="pytorch, DDP, 2 nodes"),
        pytest.param("pytorch", {"count": 2, "shard_model": True}, id="pytorch, FSDP, 2 workers"),
        pytest.param("tensorflow", {"count": 2}, id="tensorflow, Mirrored, 2 workers"),
        pytest.param("tensorflow", {"count": 3}, id="tensorflow, Mirrored, 3 workers"),
        pytest.param("tensorflow", {"nodes": 2}, id="tensorflow, MultiWorkerMirrored, 2 nodes"),
    ],
)
def test_same_loss_curve_as_one_worker(framework, accelerator, prepared, alone, tmp_path):
    found = train(prepared, tmp_path, framework, accelerator)
    assert found["workers"] == accelerator.get("count", 1) * accelerator.get("nodes", 1)
    same_curve(alone(framework), found)


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_same_loss_curve_with_class_weights_and_a_limit_of_steps(framework, prepared, alone, tmp_path):
    hyper = {"class_weights": "balanced", "epochs": None, "steps": 50}
    found = train(prepared, tmp_path, framework, {"count": 2}, **hyper)
    assert found["steps"] == 50
    same_curve(alone(framework, **hyper), found)


@pytest.mark.skipif(not TAXI.exists(), reason=f"the taxi data is not part of the repository and not at {TAXI}")
def test_two_workers_reach_the_auc_of_one_on_taxi_trips(tmp_path):
    document = {
        "name": "taxi",
        "data": {"path": str(TAXI), "exclude": ["tips"]},
        "label": "big_tipper",
        "trainer": {"framework": ["tensorflow", "pytorch"]},
        "serving": {"infra_validation": None},
    }
    (tmp_path / "taxi.yaml").write_text(yaml.safe_dump(document))
    aucs = {}
    for workers in (1, 2):
        done = run(tmp_path / "taxi.yaml", tmp_path / f"on {workers}", "--set", f"trainer.accelerator=cpu:{workers}")
        aucs[workers] = {name: model["metrics"]["auc"] for name, model in done.json["models"].items() if name in TRAINERS}
    assert set(aucs[1]) == set(aucs[2]) == TRAINERS
    for name in TRAINERS:
        assert aucs[2][name] == pytest.approx(aucs[1][name], abs=0.005), (name, aucs)


def children(pid):
    return [child.pid for child in psutil.Process(pid).children()]


def after_third_epoch(process):
    # An epoch is told before its checkpoint is whole: two of them are.
    for _ in range(3):
        assert process.stdout.readline().startswith("STEP"), "it ended before its third epoch"


@pytest.mark.parametrize(
    ("framework", "accelerator"),
    [
        ("pytorch", {"count": 2}),
        ("pytorch", {"count": 2, "shard_model": True}),
        ("tensorflow", {"nodes": 2}),
    ],
    ids=["pytorch, DDP", "pytorch, FSDP", "tensorflow, MultiWorkerMirrored"],
)
def test_a_worker_that_is_killed_is_started_again_from_the_checkpoint(framework, accelerator, prepared, alone, tmp_path):
    # Enough epochs that the kill falls into the middle.
    process = start(job(prepared, tmp_path, framework, accelerator, epochs=20), tmp_path)
    after_third_epoch(process)
    (launcher,) = children(process.pid)
    os.kill(children(launcher)[-1], signal.SIGKILL)
    process.communicate(timeout=240)
    assert process.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["resumed_from_epoch"] > 0
    same_curve(alone(framework, epochs=20), found)


def test_workers_end_with_the_stage(prepared, tmp_path):
    process = start(job(prepared, tmp_path, "pytorch", {"count": 2}, epochs=2000), tmp_path)
    after_third_epoch(process)
    (launcher,) = children(process.pid)
    workers = children(launcher)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{p}").exists() for p in (launcher, *workers)):
        assert time.monotonic() < deadline, "the workers outlived the stage"
        time.sleep(0.2)


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_a_mistake_in_the_model_is_told_once(framework, prepared, tmp_path):
    (tmp_path / "bad.py").write_text("def build_model(spec):\n    return 3\n")
    command = job(prepared, tmp_path, framework, {"nodes": 2})
    given = json.loads((tmp_path / "given.json").read_text())
    given["settings"]["code"]["path"] = str(tmp_path / "bad.py")
    (tmp_path / "given.json").write_text(json.dumps(given))
    process = start(command, tmp_path)
    process.communicate(timeout=120)
    assert process.returncode != 0
    last = (tmp_path / "log").read_text().strip().splitlines()[-1]
    assert "UserError: trainer.model: build_model must return a" in last
