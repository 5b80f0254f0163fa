"""The process of a training imports its own framework and none of the stage's, and ends with its stage."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from switchyard.components.bundle.code import load_predictor_class
from switchyard.components.data.feature_spec import FeatureSpec
from switchyard.components.data.summary import DatasetSummary
from switchyard.components.errors import StageError, UserError
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.columns import FILE, ColumnsWriter, features_json
from switchyard.components.training.example_source import blocks
from switchyard.components.training.hyperparameters_config import HyperparametersConfig
from switchyard.components.training.job import TrainingJob
from switchyard.components.training.settings import TrainerSettings
from switchyard.components.training.workers.group import train
from switchyard.components.training.workers.module_server import ModuleServer, running_module_server
from switchyard.components.training.workers.predicting import predictor_class
from switchyard.components.training.workers.training_process import TrainingServers, training_server
from switchyard.components.user_code.loading import UserCode
from tests.command import REPOSITORY, alive, environment

SPECS = (FeatureSpec("a", "float32", (1,)), FeatureSpec("b", "float32", (1,)))
OTHERS = ["tensorflow", "tensorflow_transform", "tfx", "tfx_bsl", "keras", "apache_beam", "mlflow"]
# Notes what is in the process that it is built in; then does what the job asks for.
TORCH = """
import json, os, signal, sys, time
from pathlib import Path
from torch import nn


class Model(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.layer, self.how, self.calls = nn.Linear(2, 1), how, 0

    def forward(self, features):
        import torch

        if self.training and self.how == "typo":
            raise KeyError("no such thing")
        return self.layer(torch.cat([features["a"], features["b"]], 1))


def build_model(spec):
    folder = Path(spec.parameters["folder"])
    (folder / f"modules-{os.getpid()}.json").write_text(json.dumps(sorted(sys.modules)))
    how = spec.parameters.get("how", "")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sleeps":
        time.sleep(600)
    return Model(how)
"""
KERAS = """
import json, os, sys
from pathlib import Path
import keras


def build_model(spec):
    (Path(spec.parameters["folder"]) / f"modules-{os.getpid()}.json").write_text(json.dumps(sorted(sys.modules)))
    inputs = {f.name: keras.Input((1,)) for f in spec.features}
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(list(inputs.values()))))
"""

# Notes what it is given; then fails, or waits for the end of its standard input.
SEEN = """
import json, os, socket, sys

inherited = socket.socket(fileno=int(sys.argv[1]))
seen = {"modules": sorted(sys.modules), "name": inherited.getsockname()[1], "environment": dict(os.environ), "path": sys.path}
seen["pid"] = os.getpid()
with open(sys.argv[2], "w") as file:
    json.dump(seen, file)
if sys.argv[3] == "fails":
    raise ValueError("no such model")
os.read(0, 1)
"""


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """Returns a function that starts `SEEN` beside a training server; it returns the process, its port and what it saw."""
    (tmp_path / "seen.py").write_text(SEEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start(how):
        file = tmp_path / "seen.json"
        with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "module.log").open("wb") as output:
            process = running_module_server("pytorch").start("seen", [str(file), how], listening, output, {"A": "b"})
            port = listening.getsockname()[1]
        until(lambda: file.is_file() and file.read_text().endswith("}"))
        return process, port, json.loads(file.read_text())

    with TrainingServers(["pytorch"], tmp_path) as servers:
        for name, value in servers.environment.items():
            monkeypatch.setenv(name, value)
        yield start


def until(true):
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def job(tmp_path):
    """Returns a function that makes a job, whose model does `how`."""
    random = np.random.default_rng(0)
    for split, rows in (("train", 200), ("eval", 50)):
        (tmp_path / f"Split-{split}").mkdir()
        x = random.normal(size=(rows, 2)).astype(np.float32)
        with (tmp_path / f"Split-{split}" / "x.arrow").open("wb") as file:
            writer = ColumnsWriter(file, blocks(SPECS), "int64")
            writer.write(((x,), (x[:, 0] > 0).astype(np.int64)))
            writer.close()
    (tmp_path / FILE).write_text(features_json(SPECS))
    DatasetSummary("f", [], {}, {}, {"train": 200, "eval": 50}, 0, [], [], "y", "binary", [0, 1], {"0": 100, "1": 100}).save(
        str(tmp_path)
    )

    def make(framework="pytorch", how="", **accelerator):
        model = tmp_path / "model.py"
        model.write_text(TORCH if framework == "pytorch" else KERAS)
        hyper = HyperparametersConfig(epochs=2, batch_size=32, learning_rate=0.01, early_stopping=None, seed=1)
        settings = TrainerSettings(
            version="0",
            bundle=0,
            framework=framework,
            own_preprocessing=False,
            code=UserCode(str(model), "build_model"),
            model_parameters={"folder": str(tmp_path), "how": how},
            loss=None,
            loss_code=None,
            loss_parameters={},
            hyperparameters=hyper,
            accelerator=AcceleratorProfile(**{"kind": "cpu", **accelerator}),
        )
        state = str(tmp_path / "state")
        return TrainingJob(settings=settings, examples=str(tmp_path), transformed_examples=str(tmp_path), state=state)

    return make


@pytest.fixture(scope="module")
def variables_of_server(tmp_path_factory):
    """The variables of a run that has a process which has imported PyTorch: once for all tests that start from it."""
    others = set(psutil.Process().children())
    with TrainingServers(["pytorch"], tmp_path_factory.mktemp("servers")) as servers:
        [server] = set(psutil.Process().children()) - others
        until(server.children)  # the fork for modules, which no test leaves behind
        yield servers.environment


@pytest.fixture
def _from_server(variables_of_server, monkeypatch):
    """Trainings and predictors of this process start from that process."""
    for name, value in variables_of_server.items():
        monkeypatch.setenv(name, value)


def modules(folder):
    """Pid -> the modules of a process that built the model."""
    return {int(f.stem.partition("-")[2]): set(json.loads(f.read_text())) for f in folder.glob("modules-*.json")}


def no_report(step, metrics):
    return False


@pytest.mark.core
def test_a_pytorch_model_is_trained_without_tensorflow_and_tfx(job, tmp_path, said):
    reports = []
    result = train(job(), lambda step, metrics: reports.append((step, metrics)))
    assert [step for step, _ in reports] == [7, 14]
    assert result.history == tuple(metrics for _, metrics in reports)
    assert (tmp_path / "state" / "export" / "model.pt2").exists()
    [(pid, found)] = modules(tmp_path).items()
    assert pid != os.getpid()
    assert "torch" in found
    assert not found & {*OTHERS, "lightning", "torchmetrics"}


def test_each_of_several_workers_is_trained_without_tensorflow_and_tfx(job, tmp_path):
    result = train(job(count=2), no_report)
    assert result.workers == 2
    found = modules(tmp_path)
    assert len(found) == 2
    assert not set.union(*found.values()) & set(OTHERS)


@pytest.mark.parametrize(("accelerator", "processes"), [({}, 1), ({"nodes": 2}, 2)])
def test_a_process_that_trains_with_keras_imports_no_pytorch(accelerator, processes, job, tmp_path):
    """Starts as a stage does: forked from a process that has imported what stages share."""
    code = f"""
import json
from switchyard.pipelines.runners.local.preload import preload
preload()
from switchyard.components.training.job import TrainingJob
from switchyard.components.training.workers.group import train
train(TrainingJob.model_validate_json({job("tensorflow", **accelerator).model_dump_json()!r}), lambda step, metrics: None)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(PYTHONPATH=REPOSITORY),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = modules(tmp_path).values()
    assert len(found) == processes
    for names in found:
        assert "tensorflow" in names
        assert not names & {"torch", "lightning", "torchmetrics"}


@pytest.mark.core
@pytest.mark.usefixtures("_from_server")
def test_the_stage_receives_the_outcome_of_the_training(job, tmp_path):
    with training_server("pytorch", tmp_path / "log") as server:

        def trained(how):
            return server.train(job(how=how).model_copy(update={"state": str(tmp_path / (how or "well"))}), no_report)

        assert trained("")["epochs"] == 2
        with pytest.raises(StageError, match=r"^its process was killed by SIGKILL. Perhaps the machine ran out of memory$"):
            trained("killed")
        with pytest.raises(UserError, match=r"model.py, line 16: KeyError: 'no such thing'."):
            trained("typo")
        with pytest.raises(UserError, match="requests 1 gpu, this machine has: "):
            server.check(job().settings.model_copy(update={"accelerator": AcceleratorProfile("gpu")}))
        assert server.check(job().settings) == "pytorch"
        # One that is not to go on.
        pruned = job().model_copy(update={"state": str(tmp_path / "pruned")})
        assert server.train(pruned, lambda step, metrics: True) is None


def test_a_training_ends_with_its_stage(job, tmp_path):
    code = f"""
from switchyard.components.training.job import TrainingJob
from switchyard.components.training.workers.group import train
train(TrainingJob.model_validate_json({job(how="sleeps").model_dump_json()!r}), lambda step, metrics: None)
"""
    stage = subprocess.Popen(
        [sys.executable, "-c", code], env=environment(PYTHONPATH=REPOSITORY), cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not modules(tmp_path):
        assert stage.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    started = psutil.Process(stage.pid).children(recursive=True)
    assert {p.pid for p in started} > modules(tmp_path).keys()
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive


@pytest.mark.core
@pytest.mark.usefixtures("_from_server")
def test_a_model_predicts_where_its_framework_is_imported_already(job, tmp_path):
    features = {name: np.linspace(-2, 2, 7, dtype=np.float32)[:, None] for name in "ab"}
    export = tmp_path / "state" / "export"
    train(job(), no_report)
    code = f"""
import sys
import numpy as np
from pathlib import Path
from switchyard.components.training.workers.predicting import predictor_class
predict = predictor_class(Path({str(tmp_path)!r}), "pytorch").load_predictor(Path({str(export)!r}))
features = {{name: np.linspace(-2, 2, 7, dtype=np.float32)[:, None] for name in "ab"}}
np.save({str(tmp_path / "scores.npy")!r}, np.concatenate([predict(features), predict({{k: v[:0] for k, v in features.items()}})]))
assert not {{"torch", "tensorflow"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], env=environment(PYTHONPATH=REPOSITORY), cwd=REPOSITORY, check=True)
    here = load_predictor_class(tmp_path, "pytorch").load_predictor(export)
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), here(features))
    predict = predictor_class(tmp_path, "pytorch").load_predictor(export)
    with pytest.raises(StageError, match="KeyError: 'b'"):
        predict({"a": features["a"]})
    (export / "model.pt2").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"model.pt2 is refused: it is not an archive"):
        predictor_class(tmp_path, "pytorch").load_predictor(export)


@pytest.mark.core
@pytest.mark.usefixtures("_from_server")
def test_a_job_that_predicts_ends_with_its_predictor_and_its_death_is_reported(job, tmp_path):
    features = {name: np.zeros((1, 1), np.float32) for name in "ab"}
    train(job(), no_report)
    before = set(psutil.Process().children(recursive=True))
    predict, other = (predictor_class(tmp_path, "pytorch").load_predictor(tmp_path / "state" / "export") for _ in range(2))
    one, two = sorted(set(psutil.Process().children(recursive=True)) - before, key=lambda p: p.create_time())
    one.kill()
    with pytest.raises(StageError, match=r"^its process was killed by SIGKILL"):
        predict(features)
    assert other(features).shape == (1, 1)
    del other
    assert two in psutil.wait_procs([two], timeout=30)[0]


@pytest.mark.core
def test_a_module_runs_in_a_fork_with_pytorch_and_nothing_of_a_training(seen):
    process, port, found = seen("waits")
    assert {"torch", "switchyard.components.training.pytorch.predictor"} <= set(found["modules"])
    trainers = [
        "lightning",
        "torchmetrics",
        "switchyard.components.training.pytorch.trainer",
        "switchyard.components.training.job",
    ]
    assert not {*trainers, *OTHERS} & set(found["modules"])
    assert (found["name"], found["environment"]) == (port, {"A": "b"})
    assert process.ended() is None
    running = psutil.Process(found["pid"])
    process.stop(30)
    assert not running.is_running()


def test_a_module_runs_in_a_fork_with_tensorflow_alone_and_the_path_of_a_new_interpreter(tmp_path):
    (tmp_path / "seen.py").write_text(SEEN)
    code = (
        "import sys, time\n"
        "from switchyard.components.training.workers.module_server import fork_server\n"
        "from switchyard.pipelines.runners.local.preload import preload_serving\n"
        "sys.path.insert(0, '/of/the/user')\n"
        "preload_serving()\n"
        "fork_server(sys.argv[1])\n"
        "import keras\n"
        "time.sleep(600)\n"
    )
    address, file = str(tmp_path / "socket"), tmp_path / "seen.json"
    variables = environment(PYTHONPATH=os.pathsep.join((str(REPOSITORY), str(tmp_path))))
    stages = subprocess.Popen([sys.executable, "-c", code, address], env=variables, stdin=subprocess.DEVNULL)
    until(lambda: os.path.exists(address))
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "module.log").open("wb") as output:
        process = ModuleServer(address).start("seen", [str(file), "waits"], listening, output, {"A": "b"})
    until(lambda: file.is_file() and file.read_text().endswith("}"))
    seen = json.loads(file.read_text())
    assert {"tensorflow", "switchyard.components.serving.server"} <= set(seen["modules"])
    assert not {"keras", "torch", "tfx", "apache_beam", "mlflow.store", "switchyard.pipelines.definition"} & set(seen["modules"])
    assert ("/of/the/user" in seen["path"], str(tmp_path) in seen["path"], seen["environment"]) == (False, True, {"A": "b"})
    server = psutil.Process(seen["pid"]).parent()
    assert server.ppid() == stages.pid
    process.stop(30)
    stages.kill()
    stages.wait()
    until(lambda: not alive(server.pid))
    assert not alive(seen["pid"])


def test_the_end_of_a_module_in_a_fork_is_reported_with_its_output(seen, tmp_path):
    process, _, _ = seen("fails")
    until(lambda: process.ended() is not None)
    assert process.ended() == "its process ended with exit code 1"
    assert (tmp_path / "module.log").read_text().rstrip().endswith("ValueError: no such model")
    process.stop(30)


def test_a_server_that_cannot_start_is_reported_with_the_reason(job, tmp_path, monkeypatch):
    (tmp_path / "safetensors.py").write_text("raise ImportError('libcuda.so.1 is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        training_server("pytorch", tmp_path / "log") as server,
        pytest.raises(StageError, match=r"libcuda.so.1 is missing\. Log: "),
    ):
        server.train(job(), no_report)
