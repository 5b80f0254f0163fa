"""Imported once by the process that stages are forked from: what every stage would otherwise pay for again.

PyTorch is not: it trains in processes of its own, see `switchyard.components.training.workers.training_server`, and a stage that
runs a PyTorch model imports it then.
"""

import importlib
import os

from switchyard.components.import_order import without_pytorch
from switchyard.components.process.variables import PRELOAD_LOG, PRELOAD_TRAINERS

MODULES = (
    "switchyard.pipelines.definition",
    "switchyard.pipelines.preflight",
    "switchyard.pipelines.runners.local.executor",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.system_metrics.system_metrics_monitor",
)


def preload() -> None:
    """Imports it all; output goes to the file named by `PRELOAD_LOG`."""
    log = os.environ.pop(PRELOAD_LOG, None)
    if log:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
    trainers = os.environ.pop(PRELOAD_TRAINERS, "").split(",")
    with without_pytorch():
        for module in (*MODULES, *filter(None, trainers)):
            importlib.import_module(module)
    from switchyard.components.compat import beam_caches, beam_local_globs, tensorflow_globs, tfx_reader
    from switchyard.components.data.tfrecords import ReadExamples

    beam_caches.install()
    beam_local_globs.install()
    tensorflow_globs.install()
    tfx_reader.install(ReadExamples)


if PRELOAD_LOG in os.environ:
    preload()
