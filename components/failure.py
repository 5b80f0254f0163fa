"""Converts any exception to a `Failure`: the user's error behind it if there is one, else its first line."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path

from switchyard.components.errors import (
    DataGateError,
    Failure,
    StageError,
    SwitchyardError,
    TerminatedError,
    TrainingError,
    UserError,
    error_chain,
    in_one_line,
    text_of,
)
from switchyard.components.process.full_disk import full_disk
from switchyard.components.text.redaction import mask
from switchyard.components.user_code.loading import users_error

# Beam appends the place where an error was raised to its text.
_BEAMS_PLACE = re.compile(r"\s*\[while running .*", re.DOTALL)


def classify(error: BaseException, log: Path | None) -> Failure:
    """Returns the failure behind an exception, with secrets masked in its message.

    Args:
        error: the exception.
        log: log file to name in the message, except for known user errors.
    """
    found = _classified(error, log)
    return Failure(found.kind, mask(found.message))


def expected(error: BaseException) -> Failure | None:
    """Returns the user, data gate or training error behind an exception, or None."""
    for seen in error_chain(error):
        if isinstance(seen, UserError | DataGateError | TrainingError):
            return Failure(seen.kind, _BEAMS_PLACE.sub("", text_of(seen)))
    return None


def _classified(error: BaseException, log: Path | None) -> Failure:
    if isinstance(error, SystemExit) and error.__cause__ is not None:
        error = error.__cause__
    where = f" Log: {log}" if log else ""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        # Neither Switchyard nor its libraries exit a child process this way.
        last = traceback.extract_tb(error.__traceback__)[-1:]
        place = f"{os.path.basename(last[0].filename)}, line {last[0].lineno}: " if last else ""
        message = users_error(error) or f"{place}{in_one_line(error)}"
        return Failure(UserError.kind, f"{message} ends the process; raise another exception class instead.{where}")
    for seen in error_chain(error):
        if isinstance(seen, TerminatedError):
            # Termination takes precedence over its consequences, such as an export cut short.
            return Failure(seen.kind, f"{seen}{where}")
    full = full_disk(error, *([log] if log else []))
    if found := Failure(StageError.kind, f"{full}{where}") if full else expected(error):
        return found
    for seen in error_chain(error):
        # The original error takes precedence over its consequences, such as a file that cannot be closed after termination.
        if isinstance(seen, SwitchyardError):
            return Failure(seen.kind, f"{seen}{where}")
    if isinstance(error, MemoryError):
        return Failure(StageError.kind, f"out of memory.{where}")
    message = users_error(error)
    lines = text_of(error).strip().splitlines()
    unexplained = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return Failure(UserError.kind if message else StageError.kind, f"{message or unexplained}.{where}")
