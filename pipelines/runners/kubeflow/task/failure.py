"""Failure of a task: a short message and an exit code that gives the kind of error."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from switchyard.components.errors import Failure, StageError, TerminatedError
from switchyard.components.failure import classify
from switchyard.components.process.at_termination import at_termination
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
    """Turns an exception into a message on standard error and an exit code; yields the Stage to update between stages.

    SIGTERM is reported when it arrives: the process may be killed before the exception has propagated.
    """
    stage, reporting, reported = Stage(), threading.Lock(), threading.Event()

    def terminated() -> None:
        with reporting:
            if not reported.is_set():
                _report(classify(TerminatedError(), None), stage)
                reported.set()

    install()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        with at_termination(terminated):
            yield stage
    except Exception as error:
        found = classify(error, None)
        if isinstance(error, TerminatedError):
            terminated()
        else:
            if found.kind == StageError.kind:
                traceback.print_exc()
            _report(found, stage)
        raise SystemExit(found.exit_code) from error


def _report(found: Failure, stage: Stage) -> None:
    write(ERROR_PREFIX + found.message.replace("\n", "\n" + ERROR_PREFIX) + "\n")
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        with suppress(OSError):
            _TERMINATION_LOG.write_text(last_words(found, stage.name), encoding="utf-8")


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
