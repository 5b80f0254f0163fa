"""How a task fails: one short message for a person, and an exit code that says whose mistake it was."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from switchyard.components.errors import EXIT_BAD_INPUT, EXIT_DATA_GATE, EXIT_FAILED, DataGateError, UserError
from switchyard.components.text.redaction import install
from switchyard.pipelines.runners.local.process import classify

# Kubernetes shows what a container writes here as the reason of its end.
_TERMINATION_LOG = Path("/dev/termination-log")
# Kubernetes keeps 4096 bytes.
_LONGEST = 4_000
_EXIT_CODE = re.compile(r" \(switchyard exit code (\d+)(?: in ([^()\s]+))?\)\s*$")
ERROR_PREFIX = "switchyard: error: "
_CODES = {"user": EXIT_BAD_INPUT, "gate": EXIT_DATA_GATE}
KINDS = {EXIT_BAD_INPUT: UserError, EXIT_DATA_GATE: DataGateError}


def write(text: str) -> None:
    """Writes to standard error at once: a pod's log is followed."""
    sys.stderr.write(text)
    sys.stderr.flush()


class Stage:
    """The stage that a process is at, where it does several."""

    name = ""


@contextmanager
def report_failure() -> Iterator[Stage]:
    """Turns an exception into a message on standard error and an exit code; yields what to set while it does several stages."""
    stage = Stage()
    install()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        yield stage
    except Exception as error:
        kind, message = classify(error, None)
        if kind == "stage":
            traceback.print_exc()
        code = _CODES.get(kind, EXIT_FAILED)
        write(ERROR_PREFIX + message.replace("\n", "\n" + ERROR_PREFIX) + "\n")
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            with suppress(OSError):
                _TERMINATION_LOG.write_text(last_words(message, code, stage.name), encoding="utf-8")
        raise SystemExit(code) from error


def last_words(message: str, code: int, stage: str = "") -> str:
    """Returns what a container leaves behind. KFP's launcher makes 1 of every exit code: hence it is said in words too.

    Args:
        message: what went wrong.
        code: the exit code.
        stage: which one it was, of a container that does several.
    """
    kept = message.encode()[-_LONGEST:].decode(errors="ignore")
    return f"{kept} (switchyard exit code {code}{f' in {stage}' if stage else ''})"


def exit_code(message: str) -> tuple[str, int | None]:
    """Returns what `last_words` was made of; None: it is not by us."""
    found = _EXIT_CODE.search(message)
    return (message[: found.start()], int(found[1])) if found else (message, None)


def failed_stage(message: str) -> str:
    """Returns the stage that `last_words` named; empty: it named none."""
    found = _EXIT_CODE.search(message)
    return (found[2] or "") if found else ""
