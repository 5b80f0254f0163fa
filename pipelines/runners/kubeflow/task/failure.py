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

from switchyard.components.errors import Failure, StageError
from switchyard.components.failure import classify
from switchyard.components.text.redaction import install

# Kubernetes shows what a container writes here as the reason of its end.
_TERMINATION_LOG = Path("/dev/termination-log")
# Kubernetes keeps 4096 bytes.
_LONGEST = 4_000
_EXIT_CODE = re.compile(r" \(switchyard exit code (\d+)(?: in ([^()\s]+))?\)\s*$")
ERROR_PREFIX = "switchyard: error: "


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
        found = classify(error, None)
        if found.kind == StageError.kind:
            traceback.print_exc()
        write(ERROR_PREFIX + found.message.replace("\n", "\n" + ERROR_PREFIX) + "\n")
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            with suppress(OSError):
                _TERMINATION_LOG.write_text(last_words(found, stage.name), encoding="utf-8")
        raise SystemExit(found.exit_code) from error


def last_words(failure: Failure, stage: str = "") -> str:
    """Returns what a container leaves behind. KFP's launcher makes 1 of every exit code: hence it is said in words too.

    Args:
        failure: what went wrong.
        stage: which one it was, of a container that does several.
    """
    kept = failure.message.encode()[-_LONGEST:].decode(errors="ignore")
    return f"{kept} (switchyard exit code {failure.exit_code}{f' in {stage}' if stage else ''})"


def read_last_words(text: str) -> tuple[Failure, str] | None:
    """Returns what `last_words` was made of, the stage empty where it named none; None: the text is not by us."""
    found = _EXIT_CODE.search(text)
    return (Failure.of_exit_code(int(found[1]), text[: found.start()]), found[2] or "") if found else None
