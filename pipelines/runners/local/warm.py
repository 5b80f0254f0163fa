"""`python -m switchyard.pipelines.runners.local.warm FOLDER KEY LOCK`: a run and its stages are forked from it."""

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
from switchyard.components.training.trainers import TRAINERS
from switchyard.components.training.workers.training_process import STAGES_OWN

# The run's, besides what stages import.
_COMMANDS = (
    "switchyard.pipelines.commands.run",
    "switchyard.pipelines.api.run",
    "switchyard.pipelines.runners.local.runner",
)


def main(folder: Path, key: str, lock: int) -> None:
    """Imports what runs and stages need, and serves."""
    server = WarmServer(folder, key, warm.STAGES, lock)
    from switchyard.pipelines.runners.local import preload
    from switchyard.pipelines.runners.this_machine import NEEDED

    preload.preload()
    with without_other_frameworks():
        for module in (*_COMMANDS, *NEEDED, TRAINERS[STAGES_OWN].partition(":")[0]):
            importlib.import_module(module)
    server.serve()


def fork_stages(payload: None, descriptors: Sequence[int]) -> int:
    """Runs the server that `multiprocessing` forks a run's stages from; see `StageProcesses`."""
    for name in (variables.PRELOAD_LOG, variables.PRELOAD_TRAINERS):
        os.environ.pop(name, None)
    fork_server.serve(descriptors)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
