"""`python -m switchyard.components.infra_validation.server_main FD FOLDER DIGEST`: a bundle's server on an inherited socket.

A fresh interpreter, as in production: what only the training process had (modules, variables) is not there. It ends
when its standard input does, so that it never outlives the stage, however that dies.
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
        # The stage that starts this server has the digest from the one that made the bundle, if that noted one.
        with open_model(folder, digest=digest, trust=True) as opened:
            if bundle_info(opened.folder).framework != "tensorflow":
                import_torch_first()  # PyTorch comes first; a SavedModel needs none
            import_tensorflow_without_keras()
            options = ServeOptions(NAME, access_log=None)
            serve(opened, listening, options, metadata.version("switchyard"), lambda line: print(line, flush=True))  # noqa: T201
    except (UserError, StageError) as error:
        print(error, flush=True)  # noqa: T201
        return 1
    return 0


def _end_with_the_stage() -> None:
    # Not `sys.stdin`: its lock, held by a thread that waits, would abort the interpreter's end.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]), sys.argv[3] or None))
