"""Training on NVIDIA GPUs, for real: precisions, compilers, memory, metrics, several of them. `make test-gpu`."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from switchyard.components.errors import TrainingError
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from switchyard.components.training.tensorflow.trainer import TensorflowTrainer
from tests.command import BREAST_CANCER, REPOSITORY, run
from tests.contract.test_compile import keras_model, much_tensorflow, much_torch, torch_model
from tests.training_jobs import train
from tests.training_requests import no_report

BOTH = ["tensorflow", "pytorch"]


def gpus():
    if not shutil.which("nvidia-smi"):
        return 0
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return len(listed.stdout.splitlines()) if listed.returncode == 0 else 0


HERE = gpus()
pytestmark = [
    pytest.mark.skipif(HERE < 1, reason="no NVIDIA GPU: `nvidia-smi --list-gpus` lists none on this machine"),
]
needs_two = pytest.mark.skipif(HERE < 2, reason=f"needs two NVIDIA GPUs, this machine has {HERE}")


def close(one, other, difference):
    """Losses of two trainings; a GPU adds up in other orders, and by default in TF32 or less."""
    assert len(one["history"]) == len(other["history"])
    for a, b in zip(one["history"], other["history"], strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=difference)
        assert b["val_loss"] == pytest.approx(a["val_loss"], abs=difference)


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("trainer", BOTH)
def test_learns_as_on_a_cpu(trainer, precision, prepared, alone, tmp_path):
    found = train(prepared, tmp_path, trainer, {"kind": "gpu", "precision": precision})
    assert found["device"].startswith("gpu (")
    close(alone(trainer), found, 0.01 if precision == "float32" else 0.05)


@pytest.mark.parametrize("trainer", BOTH)
def test_compiled_models_learn_the_same(trainer, prepared, alone, tmp_path):
    found = train(prepared, tmp_path, trainer, {"kind": "gpu", "compile": True})
    close(alone(trainer), found, 0.01)
    assert "falling back" not in (tmp_path / "log").read_text()


@needs_two
@pytest.mark.parametrize("trainer", BOTH)
def test_two_gpus_learn_as_one(trainer, prepared, alone, tmp_path):
    found = train(prepared, tmp_path, trainer, {"kind": "gpu", "count": 2})
    assert found["workers"] == 2
    close(alone(trainer), found, 0.01)


@needs_two
def test_a_model_spread_over_two_gpus(prepared, alone, tmp_path):
    close(alone("pytorch"), train(prepared, tmp_path, "pytorch", {"kind": "gpu", "count": 2, "shard_model": True}), 0.01)


@pytest.mark.parametrize(
    ("trainer", "build_model"),
    [(TensorflowTrainer, keras_model(of=much_tensorflow)), (PytorchTrainer, torch_model(also=much_torch))],
)
def test_out_of_memory_is_an_error_that_names_the_batch_size(trainer, build_model, make):
    with pytest.raises(
        TrainingError, match=r"ran out of memory on the gpu with trainer.hyperparameters.batch_size 32: .*alloc.*smaller"
    ):
        trainer().train(make(build_model=build_model, accelerator=AcceleratorProfile("gpu")), no_report)


def test_a_model_that_makes_tensors_is_served_on_the_gpu(make):
    build_model = torch_model(also=lambda x: torch.ones(x.shape[0], 1, device=x.device))
    request = make(build_model=build_model, epochs=1, accelerator=AcceleratorProfile("gpu"))
    PytorchTrainer().train(request, no_report)
    features, _ = next(iter(request.eval.batches(8)))
    served = PytorchTrainer.load_predictor(request.export_dir)(features)
    on_a_cpu = torch.export.load(request.export_dir / "model.pt2").module()({k: torch.tensor(v) for k, v in features.items()})
    np.testing.assert_allclose(served, on_a_cpu.detach().numpy(), atol=1e-5)


def test_tensorflow_takes_memory_as_it_needs_it():
    code = (
        "from switchyard.components.training.accelerator import AcceleratorProfile\n"
        "from switchyard.components.training.tensorflow.trainer import TensorflowTrainer\n"
        "TensorflowTrainer().prepare(AcceleratorProfile('gpu'))\n"
        "import tensorflow as tf\n"
        "print([tf.config.experimental.get_memory_growth(g) for g in tf.config.list_physical_devices('GPU')])"
    )
    alone = {k: v for k, v in os.environ.items() if k != "TF_FORCE_GPU_ALLOW_GROWTH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=alone, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str([True] * HERE)


def test_keras_trains_in_a_process_that_has_used_the_gpu():
    """In a Kubeflow task training may follow transform; a custom image may show it a GPU that no setting requests."""
    code = (
        "import tensorflow as tf\n"
        "tf.constant(1) + 1\n"
        "from switchyard.components.training.accelerator import AcceleratorProfile\n"
        "from switchyard.components.training.tensorflow.trainer import TensorflowTrainer\n"
        "TensorflowTrainer().prepare(AcceleratorProfile())\n"
    )
    alone = {k: v for k, v in os.environ.items() if k != "TF_FORCE_GPU_ALLOW_GROWTH"}
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=alone, check=True)


@pytest.mark.parametrize("trainer", BOTH)
def test_a_whole_pipeline_logs_the_gpu_to_mlflow(trainer, tmp_path):
    done = run(BREAST_CANCER, tmp_path, "--trainer", trainer, "--set", "trainer.accelerator={kind: gpu, precision: bf16}")
    assert done.json["status"] == "blessed"
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    [training] = client.search_runs([done.json["mlflow_experiment_id"]], "tags.mlflow.runName = 'training'")
    names = {n for n in training.data.metrics if n.startswith("system/gpu_0")}
    assert {"system/gpu_0_memory_usage_megabytes", "system/gpu_0_utilization_percentage"} <= names
