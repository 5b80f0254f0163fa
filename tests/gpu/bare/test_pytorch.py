"""The PyTorch trainer on a GPU that is hard to come by: `python -m pytest tests/gpu/bare`, in under three minutes.

Needs PyTorch, Lightning, torchmetrics, safetensors, joblib, pyarrow, pydantic and pytest, of newer versions than the lock's, too;
neither TensorFlow nor TFX, and nothing installed of Switchyard. Without a GPU it runs on the CPU, as a part of `make test`,
except for what only a GPU has.
"""

import itertools

import numpy as np
import pytest
import torch

from switchyard.components.data.summary import EVAL, TRAIN, DatasetSummary
from switchyard.components.errors import TrainingError
from switchyard.components.progress import set_sink
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.columns import FILE, SUFFIX, ColumnsWriter, features_json
from switchyard.components.training.example_source import blocks
from switchyard.components.training.hyperparameters_config import HyperparametersConfig
from switchyard.components.training.job import TrainingJob
from switchyard.components.training.pytorch import batches, default_model, metrics, steps
from switchyard.components.training.pytorch import compile as compiler
from switchyard.components.training.pytorch.archive import MODEL_FILE
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from switchyard.components.training.workers.group import train_here
from tests.gpu.bare import linear_model
from tests.gpu.bare.images import SPEC, images
from tests.training_inputs import HYPER, SPECS, TASKS, Killed, killed_at, no_report, request, sources

DEVICES = torch.cuda.device_count()
KIND = "gpu" if DEVICES else "cpu"
on_a_gpu = pytest.mark.skipif(not DEVICES, reason="no NVIDIA GPU: torch.cuda.device_count() is 0")
# float32 adds up in another order on another device; the others have 8 or 11 bits of mantissa.
ALLOWED = {"float32": 1e-3, "tf32": 1e-2, "bf16": 5e-2, "fp16": 1e-2}
# The scale of fp16's losses begins too high for the gradients of a regression: two of its 39 steps are skipped on a GPU.
SKIPS = {("regression", "fp16"): 5e-2}

LINEAR = {"path": linear_model.__file__, "function": "build_model"}


def needs(count):
    reason = f"needs {count} NVIDIA GPUs, this machine has {DEVICES}; the same code is tested on CPU processes: tests/workers"
    return pytest.mark.skipif(count > DEVICES, reason=reason)


@pytest.fixture
def no_dropout(monkeypatch):
    """Removes dropout from default models: another device or dtype draws other random numbers."""
    monkeypatch.setattr(default_model, "DROPOUT", 0.0)


@pytest.fixture
def trained(tmp_path):
    """Trains; returns the request and the result."""
    numbers = itertools.count()

    def train(task="binary", build_model=None, report=no_report, folder=None, **devices):
        hyper = {k: devices.pop(k) for k in ("epochs", "batch_size", "accumulate_steps") if k in devices}
        profile = AcceleratorProfile(**{"kind": KIND, **devices})
        folder = tmp_path / (folder or str(next(numbers)))
        made = request(sources(task), folder, task, build_model=build_model, accelerator=profile, **hyper)
        return made, PytorchTrainer().train(made, report)

    return train


def scores(made, rows=200, size=None):
    """Returns the exported model's scores of the first held-out rows, in batches of `size`."""
    predict = PytorchTrainer.load_predictor(made.export_dir)
    return np.concatenate([predict(features) for features, _ in made.eval.batches(size or rows)])


# In float32 on a CPU: twice the same training, which the contract of trainers covers.
@pytest.mark.parametrize(
    "precision",
    [pytest.param("bf16", marks=pytest.mark.core), *(pytest.param(p, marks=on_a_gpu) for p in ("float32", "tf32", "fp16"))],
)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.usefixtures("no_dropout")
def test_learns_as_in_float32_on_a_cpu_and_serves_in_float32(task, precision, trained):
    _, alone = trained(task, kind="cpu", epochs=3)
    made, found = trained(task, precision=precision, epochs=3)
    allowed = SKIPS.get((task, precision), ALLOWED[precision])
    for a, b in zip(alone.history, found.history, strict=True):
        assert b["val_loss"] == pytest.approx(a["val_loss"], abs=allowed, rel=allowed)
    assert found.device.startswith(KIND)
    np.testing.assert_allclose(scores(made), scores(made, size=7), atol=1e-5)


@on_a_gpu
@pytest.mark.parametrize("graphs", [False, True], ids=["kernel by kernel", "CUDA graphs"])
@pytest.mark.parametrize(("task", "precision"), [("binary", "float32"), ("binary", "bf16"), ("multiclass", "fp16")])
@pytest.mark.usefixtures("no_dropout")
def test_a_compiled_model_learns_the_same(task, precision, graphs, trained, monkeypatch):
    monkeypatch.setattr(compiler, "_faster_as_graphs", lambda model, request, names: graphs)
    _, alone = trained(task, precision=precision, epochs=3)
    _, found = trained(task, precision=precision, epochs=3, compile=True)
    for a, b in zip(alone.history, found.history, strict=True):
        assert b["val_loss"] == pytest.approx(a["val_loss"], abs=ALLOWED[precision], rel=ALLOWED[precision])


@on_a_gpu
def test_the_faster_of_cuda_graphs_and_kernels_is_reported(trained):
    said = []
    set_sink(said.append)
    try:
        trained(epochs=1, compile=True)
    finally:
        set_sink(None)
    assert [text for text in said if "ms as a CUDA graph" in text], said


@pytest.mark.core
def test_a_killed_training_resumes_where_it_stopped(trained):
    with pytest.raises(Killed):
        trained(folder="cut", report=killed_at(52))
    _, resumed = trained(folder="cut")
    assert (resumed.resumed_from_epoch, resumed.epochs) == (3, 6)


def much_memory(spec):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, spec.outputs)

        def forward(self, features):
            x = features["x"]
            # Two rows, as the trainer tries a model, take 64 MB; 32 rows take terabytes.
            return self.layer(x) + torch.zeros(len(x) ** 4, 1 << 20, device=x.device).sum()

    return Model()


@pytest.mark.core
def test_memory_that_runs_out_is_an_error_that_names_the_allocation_and_the_next_training_works(trained):
    with pytest.raises(TrainingError, match=rf"ran out of memory on the {KIND} .*batch_size 32: .*alloc.*smaller"):
        trained(build_model=much_memory)
    _, found = trained(epochs=1)
    assert found.epochs == 1


def convolutions(spec):
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            first = (nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2))
            self.net = nn.Sequential(
                *first, nn.Conv2d(32, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3)
            )

        def forward(self, features):
            return self.net(features["image"].permute(0, 3, 1, 2))

    return Net()


@pytest.mark.core
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_convolution_scores_a_row_the_same_in_any_batch_and_on_any_device(precision, tmp_path):
    sets = [images(300, 1), images(60, 2)]
    profile = AcceleratorProfile(KIND, precision=precision)
    made = request(sets, tmp_path, "multiclass", build_model=convolutions, accelerator=profile, spec=SPEC, epochs=2)
    PytorchTrainer().train(made, no_report)
    whole = scores(made, 60)
    np.testing.assert_allclose(scores(made, 60, 7), whole, atol=1e-5)
    features, _ = next(iter(made.eval.batches(60)))
    program = torch.export.load(made.export_dir / MODEL_FILE).module(check_guards=False)
    on_the_cpu = program({"f0": torch.tensor(features["image"])}).detach().numpy()
    np.testing.assert_allclose(on_the_cpu, whole, atol=1e-5)


@pytest.mark.core
def test_a_deterministic_training_gives_the_same_bits_twice(trained):
    (first, _), (second, _) = (trained(deterministic=True, epochs=2) for _ in range(2))
    assert scores(first).tobytes() == scores(second).tobytes()


@on_a_gpu
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("share", [batches._SHARE, 0.0], ids=["on the device", "copied ahead"])
def test_nothing_waits_for_the_gpu_within_an_epoch(share, precision, trained, monkeypatch):
    monkeypatch.setattr(batches, "_SHARE", share)
    step, result, started = steps.Steps.training_loss, metrics.Metrics.result, []

    def strict(module, batch, index):
        assert batch[1].is_cuda
        if index == 0:
            started.append(module)
        if len(started) > 1:  # in the first epoch the splits are copied to the GPU
            torch.cuda.set_sync_debug_mode("error")
        return step(module, batch, index)

    def at_end(*given):
        torch.cuda.set_sync_debug_mode("default")
        return result(*given)

    monkeypatch.setattr(steps.Steps, "training_loss", strict)
    monkeypatch.setattr(metrics.Metrics, "result", at_end)
    try:
        trained(precision=precision, epochs=3)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_a_gpu
@pytest.mark.parametrize("task", TASKS)
def test_a_split_on_the_device_trains_as_one_that_is_copied_ahead(task, trained, monkeypatch):
    _, there = trained(task, epochs=3)
    monkeypatch.setattr(batches, "_SHARE", 0.0)
    _, ahead = trained(task, epochs=3)
    for a, b in zip(there.history, ahead.history, strict=True):
        assert b["val_loss"] == pytest.approx(a["val_loss"], abs=1e-5)


def several(folder, count, *, kind=KIND, shard_model=False, accumulate_steps=1, code=None):
    """Trains in as many processes as there are devices, started by the launcher of the training stage; returns the result."""
    layout = blocks(SPECS)
    columns, rows = folder / "columns", {}
    columns.mkdir(parents=True)
    (columns / FILE).write_text(features_json(SPECS))
    for split, source in zip((TRAIN, EVAL), sources("binary"), strict=True):
        (columns / f"Split-{split}").mkdir()
        with (columns / f"Split-{split}" / f"examples{SUFFIX}").open("wb") as file:
            writer = ColumnsWriter(file, layout, "int64")
            for stretch in source.stretches(source.rows):
                writer.write((tuple(stretch.arrays), stretch.labels))
            writer.close()
        rows[split] = source.rows
    facts = {
        "fingerprint": "",
        "files": [],
        "columns": {},
        "missing": {},
        "bad_rows": 0,
        "bad_row_samples": [],
        "empty_columns": [],
    }
    summary = DatasetSummary(**facts, rows=rows, label="y", task="binary", classes=[0, 1], class_counts={"0": 200, "1": 200})
    summary.save(str(folder))
    same = {k: HYPER[k] for k in ("batch_size", "learning_rate", "optimizer", "seed")}
    given = HyperparametersConfig(**same, epochs=3, early_stopping=None, accumulate_steps=accumulate_steps).model_dump()
    accelerator = {"kind": kind, "count": count, "shard_model": shard_model}
    settings = {
        "version": "0",
        "bundle": 0,
        "framework": "pytorch",
        "own_preprocessing": False,
        "code": code,
        "model_parameters": {},
        "loss": None,
        "loss_code": None,
        "loss_parameters": {},
        "hyperparameters": given,
        "accelerator": accelerator,
    }
    inputs = {"examples": str(folder), "transformed_examples": str(columns), "state": str(folder / "state")}
    job = TrainingJob.model_validate({"settings": settings, **inputs})
    return train_here(job, no_report)


@pytest.mark.parametrize("count", [pytest.param(n, marks=needs(n)) for n in (2, 4, 8)])
@pytest.mark.parametrize("shard_model", [False, True])
def test_several_gpus_learn_as_one(count, shard_model, trained, tmp_path):
    _, alone = trained(epochs=3, build_model=linear_model.build_model)
    found = several(tmp_path / "several", count, shard_model=shard_model, code=LINEAR)
    assert found.workers == count
    assert [h["val_loss"] for h in found.history] == pytest.approx([h["val_loss"] for h in alone.history], abs=1e-2)


@pytest.mark.parametrize("shard_model", [False, True])
def test_two_cpu_processes_accumulate_gradients_as_one(shard_model, trained, tmp_path):
    _, alone = trained(kind="cpu", epochs=3, accumulate_steps=5, build_model=linear_model.build_model)
    found = several(tmp_path / "several", 2, kind="cpu", shard_model=shard_model, accumulate_steps=5, code=LINEAR)
    assert (found.workers, found.steps) == (2, alone.steps)
    assert [h["val_loss"] for h in found.history] == pytest.approx([h["val_loss"] for h in alone.history], abs=1e-5)
