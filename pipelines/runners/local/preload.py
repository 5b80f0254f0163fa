"""Preloads libraries in the fork server, so that stages do not import them again.

PyTorch is not preloaded: it trains in separate processes, see `switchyard.components.training.workers.training_server`, and a
stage that runs a PyTorch model imports it on demand.
"""

import atexit
import importlib
import os

from switchyard.components.import_order import import_tensorflow_without_keras, without_other_frameworks
from switchyard.components.process.variables import PRELOAD_LOG, PRELOAD_SERVING, PRELOAD_TRAINERS
from switchyard.components.training.workers.module_server import fork_server

MODULES = (
    "switchyard.pipelines.definition",
    "switchyard.pipelines.preflight",
    "switchyard.pipelines.runners.local.executor",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.system_metrics.system_metrics_monitor",
)


def preload_serving() -> None:
    """Imports what infra validation's server of a TensorFlow model needs, a third of what stages need."""
    importlib.import_module("switchyard.components.infra_validation.server_main")
    import_tensorflow_without_keras()


def preload() -> None:
    """Imports the modules and installs the patches; output goes to the file named by `PRELOAD_LOG`.

    With `PRELOAD_SERVING` a fork that has imported what such a server needs, and nothing else, serves at its address.
    """
    log = os.environ.pop(PRELOAD_LOG, None)
    if log:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
    if serving := os.environ.pop(PRELOAD_SERVING, None):
        preload_serving()
        fork_server(serving)
    trainers = os.environ.pop(PRELOAD_TRAINERS, "").split(",")
    with without_other_frameworks():
        for module in (*MODULES, *filter(None, trainers)):
            importlib.import_module(module)
    from switchyard.components.compat import beam_caches, beam_local_globs, tensorflow_globs, tft_output_sources, tfx_reader
    from switchyard.components.data.tfrecords import ReadExamples

    beam_caches.install()
    beam_local_globs.install()
    tensorflow_globs.install()
    tft_output_sources.install()
    tfx_reader.install(ReadExamples)


if PRELOAD_LOG in os.environ:
    # The fork server ends with its runner. Called after what the imports register: no teardown of modules, which takes seconds.
    atexit.register(os._exit, 0)
    preload()
