"""`python -m switchyard.pipelines.runners.local.warm FOLDER KEY LOCK`: a run, its stages and `predict` are forked from it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from switchyard.components.compat import fork_server
from switchyard.components.import_order import without_other_frameworks
from switchyard.components.process import variables, warm
from switchyard.components.process.warm_server import WarmServer
from switchyard.components.tracking import database
from switchyard.components.training.trainers import TRAINERS
from switchyard.components.training.workers.training_process import STAGES_OWN

# The commands', besides what stages import.
_COMMANDS = (
    "switchyard.pipelines.commands.run",
    "switchyard.pipelines.api.class_folders",
    "switchyard.pipelines.api.run",
    "switchyard.pipelines.runners.local.runner",
    "switchyard.pipelines.runners.tracking.upload",
    "switchyard.pipelines.commands.predict",
    "switchyard.pipelines.api.predict",
    "switchyard.components.prediction.files",
    "switchyard.components.prediction.output",
)


def main(folder: Path, key: str, lock: int) -> None:
    """Imports what runs, stages and predictions need, and serves."""
    server = WarmServer(folder, key, warm.STAGES, lock)
    from switchyard.pipelines.runners.local import preload
    from switchyard.pipelines.runners.this_machine import NEEDED
    from switchyard.pipelines.runners.tracking import record

    preload.preload_serving()
    if server.fork(warm.SERVING):
        server.serve()
    preload.preload()
    with without_other_frameworks():
        for module in (*_COMMANDS, *NEEDED, TRAINERS[STAGES_OWN].partition(":")[0]):
            importlib.import_module(module)
    database.prepare()
    record.versions()  # keeps them
    server.serve()


def fork_stages(payload: None, descriptors: Sequence[int]) -> int:
    """Runs the server that `multiprocessing` forks a run's stages from; see `StageProcesses`."""
    for name in (variables.PRELOAD_LOG, variables.PRELOAD_TRAINERS, variables.PRELOAD_SERVING):
        os.environ.pop(name, None)
    fork_server.serve(descriptors)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
