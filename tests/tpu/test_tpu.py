"""The TPU path without a TPU: PyTorch/XLA on its CPU device, TensorFlow's fixed shapes on logical CPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import REPOSITORY
from tests.training_jobs import TRAIN, after_third_epoch, job, same_curve, start

# `make test-tpu` sets it: an environment with torch_xla and the PyTorch that fits it.
PYTHON = os.environ.get("SWITCHYARD_TPU_PYTHON", str(REPOSITORY / ".venv-tpu" / "bin" / "python"))
# The last is what a stage passes on once TensorFlow has imported JAX on a machine without a TPU.
STAGES_OWN = {"PYTHONPATH": str(REPOSITORY), "TPU_SKIP_MDS_QUERY": "1"}
XLA = {"SWITCHYARD_TRY_XLA_ON_CPU": "1", "PJRT_DEVICE": "CPU", **STAGES_OWN}
AS_ON_A_TPU = """
from switchyard.components.training.tensorflow import replicas as tensorflow_replicas
made = tensorflow_replicas.Replicas.__init__

def fixed(self, *arguments):
    made(self, *arguments)
    self._fixed = True

tensorflow_replicas.Replicas.__init__ = fixed
"""

needs_xla = pytest.mark.skipif(
    not Path(PYTHON).exists(), reason=f"there is no PyTorch/XLA at {PYTHON}: make test-tpu installs it"
)


def finish(process, state):
    process.communicate(timeout=400)
    assert process.returncode == 0, (state / "log").read_text()[-3000:]
    return json.loads((state / "result.json").read_text())


def on_xla(prepared, state, accelerator=None, **hyper):
    *_, given = job(prepared, state, "pytorch", {"kind": "tpu", **(accelerator or {})}, **hyper)
    return start([PYTHON, "-c", TRAIN, given], state, **XLA)


@needs_xla
def test_pytorch_xla_on_its_cpu_device_gives_the_same_loss_curve(prepared, alone, tmp_path):
    found = finish(on_xla(prepared, tmp_path), tmp_path)
    assert found["device"] == "tpu (PyTorch/XLA on a CPU)"
    same_curve(alone("pytorch"), found)
    assert (tmp_path / "export" / "model.pt2").exists()


@needs_xla
def test_pytorch_xla_trains_in_mixed_precision(prepared, alone, tmp_path):
    # XLA compiles all the same: `compile` is nothing more there, and no torch.compile.
    found = finish(on_xla(prepared, tmp_path, {"precision": "bf16", "compile": True}), tmp_path)
    losses = [[epoch["val_loss"] for epoch in result["history"]] for result in (alone("pytorch"), found)]
    assert losses[1] == pytest.approx(losses[0], abs=0.02)
    assert losses[1] != pytest.approx(losses[0], abs=1e-6), "these are float32's"


@needs_xla
def test_pytorch_xla_resumes_after_a_kill(prepared, alone, tmp_path):
    process = on_xla(prepared, tmp_path, epochs=20)
    after_third_epoch(process)
    process.kill()
    process.communicate()
    found = finish(on_xla(prepared, tmp_path, epochs=20), tmp_path)
    assert found["resumed_from_epoch"] > 0
    same_curve(alone("pytorch", epochs=20), found)


@needs_xla
@pytest.mark.parametrize(
    ("nodes", "environment", "message"),
    [
        (2, XLA, "requests 2 tpu"),
        # PyTorch/XLA falls back to a CPU by itself; that is no choice of the user's.
        (1, STAGES_OWN, "requests 1 tpu, this machine has: "),
    ],
    ids=["two of one", "none"],
)
def test_a_tpu_that_is_not_there_is_an_error(nodes, environment, message, prepared, tmp_path):
    *_, given = job(prepared, tmp_path, "pytorch", {"kind": "tpu", "nodes": nodes})
    process = start([PYTHON, "-c", TRAIN, given], tmp_path, **environment)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert f"UserError: trainer.accelerator {message}" in (tmp_path / "log").read_text()


def test_tensorflow_with_the_fixed_shapes_of_a_tpu_has_the_same_loss_curve(prepared, alone, tmp_path):
    *_, given = job(prepared, tmp_path, "tensorflow", {"count": 2})
    found = finish(start([sys.executable, "-c", AS_ON_A_TPU + TRAIN, given], tmp_path), tmp_path)
    assert found["workers"] == 2
    same_curve(alone("tensorflow"), found)


def test_tensorflow_asks_for_the_machines_own_tpus():
    """TPUStrategy as far as TensorFlow goes without one: up to the initialization of the hardware."""
    code = (
        "from switchyard.components.training.accelerator import AcceleratorProfile\n"
        "from switchyard.components.training.tensorflow.replicas import strategy_for\n"
        "strategy_for(AcceleratorProfile('tpu'), None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "NotFoundError: TPUs not found in the cluster" in done.stderr
