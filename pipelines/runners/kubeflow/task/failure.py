"""Failure of a task: a short message and an exit code that gives the kind of error."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from switchyard.components.errors import Failure, StageError
from switchyard.components.failure import classify
from switchyard.components.text.redaction import install

# Kubernetes shows the content of this file as the container's termination message.
_TERMINATION_LOG = Path("/dev/termination-log")
# In bytes; Kubernetes keeps 4096.
_LONGEST = 4_000
_EXIT_CODE = re.compile(r" \(switchyard exit code (\d+)(?: in ([^()\s]+))?\)\s*$")
ERROR_PREFIX = "switchyard: error: "


def write(text: str) -> None:
    """Writes to standard error and flushes it, as a pod's log is followed live."""
    sys.stderr.write(text)
    sys.stderr.flush()


class Stage:
    """The current stage of a process that runs several."""

    name = ""


@contextmanager
def report_failure() -> Iterator[Stage]:
    """Turns an exception into a message on standard error and an exit code; yields the Stage to update between stages."""
    stage = Stage()
    install()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        yield stage
    except Exception as error:
        found = classify(error, None)
        if found.kind == StageError.kind:
            traceback.print_exc()
        write(ERROR_PREFIX + found.message.replace("\n", "\n" + ERROR_PREFIX) + "\n")
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            with suppress(OSError):
                _TERMINATION_LOG.write_text(last_words(found, stage.name), encoding="utf-8")
        raise SystemExit(found.exit_code) from error


def last_words(failure: Failure, stage: str = "") -> str:
    """Returns a container's termination message. It includes the exit code, as KFP's launcher replaces every code with 1.

    Args:
        failure: the failure.
        stage: the failed stage of a container that runs several.
    """
    kept = failure.message.encode()[-_LONGEST:].decode(errors="ignore")
    return f"{kept} (switchyard exit code {failure.exit_code}{f' in {stage}' if stage else ''})"


def read_last_words(text: str) -> tuple[Failure, str] | None:
    """Parses `last_words` into failure and stage (empty when not given); returns None for other texts."""
    found = _EXIT_CODE.search(text)
    return (Failure.of_exit_code(int(found[1]), text[: found.start()]), found[2] or "") if found else None
