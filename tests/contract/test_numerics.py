"""Precisions have the same meaning in every framework; with `deterministic` two trainings are equal bit by bit."""

import json
import subprocess
import sys

import pytest
import torch

from switchyard.components.errors import UserError
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.pytorch.numerics import numerics
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from tests.contract.sklearn_trainer import SklearnTrainer
from tests.training_requests import FRAMEWORKS, no_report

# TensorFlow's switch cannot be turned back: a process of its own.
TWICE = """
import json, pathlib, sys, tempfile
from tests import training_requests as requests
from switchyard.components.training.accelerator import AcceleratorProfile
trainer = next(t for t in requests.FRAMEWORKS if t.name == sys.argv[1])
folder = pathlib.Path(tempfile.mkdtemp())
examples, scores = requests.sources("binary"), []
for name in ("first", "second"):
    accelerator = AcceleratorProfile("cpu", deterministic=True)
    request = requests.request(examples, folder / name, "binary", accelerator=accelerator, epochs=2)
    trainer().train(request, requests.no_report)
    features, _ = next(iter(request.eval.batches(1000)))
    scores.append(trainer.load_predictor(request.export_dir)(features).tobytes().hex())
print(json.dumps(scores))
"""


@pytest.mark.parametrize("trainer", [t.name for t in FRAMEWORKS])
def test_a_deterministic_training_gives_the_same_bits_twice(trainer):
    done = subprocess.run([sys.executable, "-c", TWICE, trainer], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert first == second


class Unordered(torch.nn.Module):
    """Writes to a tensor in no certain order."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, features):
        if self.training:
            torch.zeros(2).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
        return self.layer(features["x"])


@pytest.mark.core
def test_an_operation_without_a_deterministic_implementation_is_an_error(make):
    request = make(build_model=lambda spec: Unordered(), accelerator=AcceleratorProfile("cpu", deterministic=True), epochs=1)
    with pytest.raises(UserError, match=r"trainer\.deterministic: .*put_.*Replace that operation"):
        PytorchTrainer().train(request, no_report)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.core
@pytest.mark.parametrize("trainer", FRAMEWORKS)
def test_tf32_needs_a_gpu(trainer, make):
    with pytest.raises(UserError, match="'tf32' needs a GPU, the device is a CPU; use 'float32' or 'bf16'"):
        trainer().train(make(accelerator=AcceleratorProfile("cpu", precision="tf32")), no_report)


@pytest.mark.core
@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ({"precision": "bf16"}, r"trainer\.accelerator\.precision"),
        ({"compile": True}, r"trainer\.accelerator\.compile"),
        ({"deterministic": True}, r"trainer\.deterministic"),
    ],
)
def test_a_trainer_refuses_what_it_does_not_support(asked, key, make):
    with pytest.raises(UserError, match=key + ": the trainer 'sklearn' does not support it, received"):
        SklearnTrainer().train(make(accelerator=AcceleratorProfile("cpu", **asked)), no_report)


@pytest.mark.core
@pytest.mark.parametrize(("precision", "allowed"), [("float32", False), ("tf32", True), ("bf16", False)])
def test_pytorch_multiplies_and_convolves_in_tf32_only_when_that_is_asked_for(precision, allowed):
    before = torch.backends.cudnn.allow_tf32
    with numerics(AcceleratorProfile("gpu", precision=precision)):
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (allowed, allowed)
    assert torch.backends.cudnn.allow_tf32 == before
