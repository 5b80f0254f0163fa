"""Imported once by the process that stages are forked from: what every stage would otherwise pay for again.

The order matters: PyTorch and Triton before TensorFlow, see `components.training.pytorch_trainer`.
"""

import importlib
import importlib.util
import os

LOG = "SWITCHYARD_PRELOAD_LOG"


def preload() -> None:
    """Imports it all; output goes to the file named by `LOG`."""
    log = os.environ.pop(LOG, None)
    if log:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
    importlib.import_module("torch")
    if importlib.util.find_spec("triton"):
        importlib.import_module("triton")
    for module in ("pipelines.definition", "pipelines.preflight", "components.reports.views", "mlflow.pyfunc"):
        importlib.import_module(module)


if LOG in os.environ:
    preload()
