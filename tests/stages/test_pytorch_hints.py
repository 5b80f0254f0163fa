"""What Lightning prints reaches the log only if the user can act on it."""

import subprocess
import sys

CODE = """
import logging, pathlib, tempfile
logging.basicConfig(level=logging.INFO, format="%(message)s")
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from switchyard.components.training.accelerator import AcceleratorProfile
from switchyard.components.training.hooks import Hooks
from switchyard.components.training.pytorch.trainer import PytorchTrainer
from tests import training_inputs as inputs
folder, devices = pathlib.Path(tempfile.mkdtemp()), AcceleratorProfile("cpu")
# Lightning trains where there are callbacks.
hooks = Hooks(build_callbacks=lambda spec: [Callback()])
made = inputs.request(inputs.sources("binary"), folder, "binary", accelerator=devices, epochs=2, hooks=hooks)
PytorchTrainer().train(made, inputs.no_report)
rank_zero_info("from a callback")
"""


def test_a_training_logs_what_callbacks_say_and_none_of_lightnings_hints():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stderr.splitlines()
    assert said
    assert [line for line in said if "from a callback" not in line] == []
    assert not done.stdout
