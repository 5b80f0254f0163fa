"""`python -m switchyard.pipelines.runners.local.warm_trainings FOLDER KEY LOCK`: training servers are forked from these.

Two, as a training server is two, see `training_server`: one that has imported what the server of a PyTorch model imports, for
infra validation, and one that has imported the PyTorch trainer.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from switchyard.components.bundle.code import PREDICTORS
from switchyard.components.import_order import import_tensorflow_without_keras, import_torch_first
from switchyard.components.process import warm
from switchyard.components.process.warm_server import WarmServer
from switchyard.components.training.trainers import TRAINERS
from switchyard.components.training.workers import training_server


def main(folder: Path, key: str, lock: int) -> None:
    """Imports what trainings in PyTorch, and servers of their models, need, and serves."""
    server = WarmServer(folder, key, warm.TRAININGS, lock)
    import_torch_first()
    importlib.import_module(PREDICTORS["pytorch"].partition(":")[0])
    if server.fork(warm.BARE):
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # as infra validation sets it
        import_tensorflow_without_keras()
        importlib.import_module("switchyard.components.infra_validation.server_main")
    else:
        training_server.import_trainers([TRAINERS["pytorch"].partition(":")[0]])
    server.serve()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
