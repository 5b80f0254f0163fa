"""Expected errors, their exit codes, and the form in which a failure crosses processes and logs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from switchyard.components.text.redaction import mask

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_DATA_GATE = 3
EXIT_NOT_BLESSED = 4
# Meanings of the exit codes, in the order of the help.
MEANINGS = {
    EXIT_DONE: "done",
    EXIT_BAD_INPUT: "bad input: config, data, code or devices",
    EXIT_DATA_GATE: "stopped by the data gate",
    EXIT_NOT_BLESSED: "trained, but not blessed",
    EXIT_FAILED: "anything else",
}

_LONGEST, _LINE = 20_000, 500
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

# Ends the message about a path of the config that does not exist.
CHECK_PATH = "Check the path (relative ones are relative to the YAML, or without one to the working directory)."
CANCELLED = "cancelled; finished stages are kept, the next run resumes after them"


class SwitchyardError(Exception):
    """An error whose message explains it: shown without a stack trace.

    Attributes:
        kind: name in a `Failure`.
        exit_code: exit code of the command that it ends.
        run_status: status of the run that it ends.
    """

    kind: ClassVar[str]
    run_status: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = EXIT_FAILED


class UserError(SwitchyardError):
    """An error in the config, the data or the user's code.

    The message names the problem, the value received, the values allowed and the fix.
    """

    kind = "user"
    exit_code = EXIT_BAD_INPUT


class ArgumentError(UserError):
    """An error in an argument of a public function, or in the command's option for it.

    Args:
        argument: name of the argument.
        problem: the problem and its fix.
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}: {problem}")
        self.argument, self.problem = argument, problem


class TrainingError(SwitchyardError):
    """A failure of training itself, such as a NaN loss."""

    kind = "training"


class DataGateError(SwitchyardError):
    """A run stopped by the data gate; the message lists the findings."""

    kind = "gate"
    run_status = "stopped_by_data_gate"
    exit_code = EXIT_DATA_GATE


class StageError(SwitchyardError):
    """A stage failure not caused by the user's input; the stage's log has the trace."""

    kind = "stage"


class TerminatedError(StageError):
    """Received SIGTERM; takes precedence over errors raised during shutdown."""

    def __init__(self) -> None:
        super().__init__("terminated (SIGTERM): checkpoints up to here are kept where the run has a workspace")


class CancelledError(StageError):
    """A run cancelled by the user while a stage ran; no failure of the stage."""

    kind = "cancelled"

    def __init__(self, message: str = "cancelled") -> None:
        super().__init__(message)


KINDS: dict[str, type[SwitchyardError]] = {
    error.kind: error for error in (UserError, DataGateError, TrainingError, StageError, CancelledError)
}


@dataclass(frozen=True)
class Failure:
    """The reason of a failure, passed across a process, container or log as JSON (`asdict` and `Failure(**...)`).

    Attributes:
        kind: one of `KINDS`.
        message: text for the user.
    """

    kind: str
    message: str

    @classmethod
    def of_exit_code(cls, code: int, message: str) -> Failure:
        """Returns the failure for another process's exit code."""
        return cls(next((k for k, error in KINDS.items() if error.exit_code == code != EXIT_FAILED), StageError.kind), message)

    @property
    def exit_code(self) -> int:
        """The exit code of the command or task that it ends."""
        return KINDS[self.kind].exit_code

    @property
    def run_status(self) -> str:
        """The status of the run that it ends."""
        return KINDS[self.kind].run_status

    def error(self) -> SwitchyardError:
        """Returns the failure as an error to raise."""
        return KINDS[self.kind](self.message)


def error_chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and its causes, the innermost last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'?"` for the closest of `choices`, or an empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def damaged_artifact(file: str | Path, artifact: str | Path, reason: str) -> UserError:
    """Returns the error for a file that an earlier stage wrote and that was cut off or changed since.

    Args:
        file: the file.
        artifact: folder of the artifact that holds it; without it, the stage is not cached and runs again.
        reason: what is wrong with the file.
    """
    return UserError(
        f"{file} is damaged: {reason.rstrip('.')}. Delete the folder {artifact} and run again, which writes it again."
    )


def text_of(error: BaseException) -> str:
    """Returns an error's message, at most 20,000 characters, even if its `__str__` raises."""
    try:
        return str(error)[:_LONGEST]
    except BaseException as failed:  # a user's class may raise anything; only a real Ctrl-C is raised again
        if isinstance(failed, KeyboardInterrupt):
            raise
        return f"(it has no message: its __str__ raises {type(failed).__name__})"


def in_one_line(error: BaseException) -> str:
    """Returns an error's class and message in one line of at most 500 characters of message, without terminal colours."""
    text = " ".join(_COLOURS.sub("", text_of(error)).split())
    text = f"{text[:_LINE]}…" if len(text) > _LINE else text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def first_line(error: Exception) -> str:
    """Returns the first line of a library's error, else its class: at most 300 characters, secrets masked."""
    return mask((text_of(error).strip().splitlines() or [type(error).__name__])[0])[:300]


def last_line(log: Path) -> str:
    """Returns the last line of a process's log, which usually has the reason: at most 500 characters, secrets masked."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return mask(lines[-1].strip()[:500]) if lines else ""
