"""What a process imports, and what it does not: each case in an interpreter of its own."""

import subprocess
import sys

import pytest

from tests.command import REPOSITORY, environment


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment(PYTHONPATH=REPOSITORY, TF_CPP_MIN_LOG_LEVEL=3),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@pytest.mark.parametrize("trainer", ["tensorflow", "pytorch"])
def test_a_server_imports_no_training_code(trainer):
    code = f"""
import sys
from switchyard.components.import_order import import_tensorflow_without_keras, import_torch_first
import_torch_first() if {trainer!r} == "pytorch" else None
import_tensorflow_without_keras()
import switchyard.components.serving.server, switchyard.components.bundle.model
import switchyard.components.training.{trainer}.predictor
print(*[name for name in ("tensorflow", "torch", "keras", "lightning", "torchmetrics", "tfx") if name in sys.modules])
"""
    assert run(code) == ["tensorflow", *(["torch"] if trainer == "pytorch" else [])]


def test_keras_can_be_imported_later():
    code = """
import sys
from switchyard.components.import_order import import_tensorflow_without_keras
import_tensorflow_without_keras()
import tensorflow as tf
assert "keras" not in sys.modules
import keras
model = keras.Sequential([keras.layers.Dense(1)])
model.compile("adam", "mse")
model.fit(tf.ones((4, 2)), tf.ones((4, 1)), verbose=0)
print(len(model.weights))
"""
    assert run(code) == ["2"]


@pytest.mark.parametrize("without", ["import_tensorflow_without_keras()", "with without_other_frameworks(): import tensorflow"])
def test_tensorflow_imports_no_jax_and_a_user_can_import_it_later(without, tmp_path):
    (tmp_path / "jax.py").write_text("jit = print('jax')")  # JAX is not in the lock
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from switchyard.components.import_order import import_tensorflow_without_keras, without_other_frameworks
{without}
assert "jax" not in sys.modules
import jax
"""
    assert run(code) == ["jax"]


def test_pytorch_can_be_imported_after_a_run_without_it():
    code = """
import sys
from switchyard.components.import_order import without_other_frameworks
with without_other_frameworks():
    import apache_beam, tensorflow
assert "torch" not in sys.modules
import torch
print(torch.ones(2).sum().item())
"""
    assert run(code) == ["2.0"]


def test_scipy_signal_is_imported_at_its_first_use_and_not_by_torchmetrics():
    code = """
import sys
from switchyard.components.import_order import import_scipy_signal_later
import_scipy_signal_later()
import torchmetrics, scipy.signal, scipy.signal.windows
assert "scipy.signal._signaltools" not in sys.modules
assert not hasattr(scipy.signal, "no_such_name")
assert scipy.signal.hamming(3).tolist() == scipy.signal.windows.hamming(3).tolist()
from scipy.signal import *
print(scipy.signal is sys.modules["scipy.signal"], butter is scipy.signal.butter, medfilt([1.0, 9.0, 1.0]).max())
"""
    assert run(code) == ["True", "True", "1.0"]


def test_transformers_is_imported_at_the_first_use_of_its_classes_and_not_by_torchmetrics():
    pytest.importorskip("transformers")
    code = """
import sys
from switchyard.components.import_order import transformers_later
with transformers_later():
    import torchmetrics
assert "transformers" not in sys.modules
from torchmetrics.functional.text.bert import AutoModel, AutoTokenizer
assert not [name for name in sys.modules if name.startswith("transformers")]
from transformers import AutoModel as model, AutoTokenizer as tokenizer
assert AutoTokenizer.from_pretrained == tokenizer.from_pretrained
assert AutoModel.from_pretrained == model.from_pretrained
print(hasattr(torchmetrics.text, "BERTScore"))
"""
    assert run(code) == ["True"]
