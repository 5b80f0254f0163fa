"""How a task fails: one short message for a person, and an exit code that says whose mistake it was."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.errors import EXIT_BAD_INPUT, EXIT_DATA_GATE, EXIT_FAILED, DataGateError, UserError
from components.redaction import install
from pipelines.runners.stage_process import explain

# Kubernetes shows what a container writes here as the reason of its end.
_TERMINATION_LOG = Path("/dev/termination-log")
MARK = "switchyard: error: "
_CODES = {"user": EXIT_BAD_INPUT, "gate": EXIT_DATA_GATE}
KINDS = {EXIT_BAD_INPUT: UserError, EXIT_DATA_GATE: DataGateError}


def write(text: str) -> None:
    """Writes to standard error at once: a pod's log is followed."""
    sys.stderr.write(text)
    sys.stderr.flush()


@contextmanager
def said() -> Iterator[None]:
    """Turns an exception into a message on standard error and an exit code."""
    install()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        yield
    except Exception as error:
        kind, message = explain(error, None)
        if kind == "stage":
            traceback.print_exc()
        write(MARK + message.replace("\n", "\n" + MARK) + "\n")
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            with suppress(OSError):
                _TERMINATION_LOG.write_text(message[-4000:], encoding="utf-8")
        raise SystemExit(_CODES.get(kind, EXIT_FAILED)) from error
