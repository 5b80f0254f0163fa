"""Serves a bundle on an inherited socket: `python -m switchyard.components.infra_validation.server_main FD FOLDER DIGEST`.

As in production, it lacks the training process's modules and variables: a fresh interpreter, or for a model of a local run a fork
that has imported its framework, and perhaps what this module imports, alone. The server exits when its standard input closes,
so that it never outlives the stage.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from importlib import metadata
from pathlib import Path

from switchyard.components.bundle.model import bundle_info
from switchyard.components.bundle.source import open_model
from switchyard.components.compat.python_exit import exit_at_once
from switchyard.components.errors import StageError, UserError
from switchyard.components.import_order import import_tensorflow_without_keras, import_torch_first
from switchyard.components.serving.server import ServeOptions, serve
from switchyard.components.text.redaction import install

NAME = "model"


def main(listening: socket.socket, folder: Path, digest: str | None) -> int:
    """Serves until SIGTERM; returns the exit code."""
    install()
    threading.Thread(target=_end_with_the_stage, daemon=True, name="stage-watch").start()
    try:
        # The digest comes from the training stage through the infra-validation stage; None if the training stage recorded none.
        with open_model(folder, digest=digest, trust=True) as opened:
            if bundle_info(opened.folder).framework != "tensorflow":
                import_torch_first()  # PyTorch must be imported before TensorFlow; a TensorFlow bundle does not need it
            import_tensorflow_without_keras()
            options = ServeOptions(NAME, access_log=None)
            serve(opened, listening, options, metadata.version("switchyard"), lambda line: print(line, flush=True))  # noqa: T201
    except (UserError, StageError) as error:
        print(error, flush=True)  # noqa: T201
        return 1
    return 0


def _end_with_the_stage() -> None:
    # Not `sys.stdin`: a thread that holds its lock while blocked would abort interpreter shutdown.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    # The stage waits for the end of its server.
    exit_at_once(main(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]), sys.argv[3] or None))
