"""`python -m switchyard.components.training.workers.warm FOLDER KEY`: warm processes from which training servers are forked.

Two, as a training server is two, see `training_server`: one that has imported PyTorch and a bundle's predictor alone, for infra
validation's server, and one that has imported the PyTorch trainer too.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from switchyard.components.bundle.code import PREDICTORS
from switchyard.components.import_order import import_torch_first
from switchyard.components.process import warm
from switchyard.components.process.warm_server import WarmServer
from switchyard.components.training.trainers import TRAINERS
from switchyard.components.training.workers import training_server

PYTORCH = TRAINERS["pytorch"].partition(":")[0]


def main(folder: Path, key: str) -> None:
    """Imports what trainings in PyTorch need, and serves."""
    server = WarmServer(folder, key, warm.TRAININGS)
    import_torch_first()
    importlib.import_module(PREDICTORS["pytorch"].partition(":")[0])
    if server.fork(warm.BARE):
        server.serve()
    training_server.import_trainers([PYTORCH])
    server.serve()


def serve_trainings(payload: None, descriptors: Sequence[int]) -> int:
    """Runs a training server for PyTorch on a listening socket."""
    training_server.main(descriptors[0], None, [PYTORCH])
    return 0


def serve_modules(payload: None, descriptors: Sequence[int]) -> int:
    """Runs the part of a training server that runs modules on a listening socket."""
    training_server.serve_modules(descriptors[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
