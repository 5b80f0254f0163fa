"""What a person sees of a stage that failed: the reason, not what came of it."""

import re
from pathlib import Path

import pytest

from switchyard.components.errors import StageError, TerminatedError, UserError
from switchyard.pipelines.runners.local.process import _not_started, classify


def raised(*errors):
    """Returns the last of the errors, each raised while the one before was being handled."""
    try:
        if len(errors) > 1:
            raise raised(*errors[:-1])
    except Exception:
        try:
            raise errors[-1]
        except Exception as error:
            return error
    return errors[0]


@pytest.mark.parametrize(
    ("errors", "kind", "message"),
    [
        ([UserError("bad column"), RuntimeError("in Beam")], "user", "bad column"),
        ([UserError("bad column"), StageError("failed")], "user", "bad column"),
        ([StageError("terminated (SIGTERM)")], "stage", "terminated (SIGTERM) Log: x.log"),
        ([StageError("terminated (SIGTERM)"), RuntimeError("cannot close the file")], "stage", "terminated (SIGTERM) Log: x.log"),
        ([TerminatedError(), UserError("cannot export")], "stage", "terminated (SIGTERM)"),
        ([ValueError("one\ntwo")], "stage", "ValueError: one. Log: x.log"),
        ([StageError("terminated"), OSError(28, "No space left on device", "f")], "stage", "the disk is full (f)."),
    ],
)
def test_a_failed_stage_is_explained_in_one_line(errors, kind, message):
    found = classify(raised(*errors), Path("x.log"))
    assert found[0] == kind
    assert found[1].startswith(message)


@pytest.mark.parametrize("error", [SystemExit(), SystemExit(3), SystemExit("bye"), KeyboardInterrupt()], ids=repr)
def test_code_that_ends_the_process_itself_is_told_where(error):
    try:
        raise error
    except BaseException as ended:
        kind, message = classify(ended, Path("x.log"))
    assert kind == "user"
    assert type(error).__name__ in message
    assert re.search(r"test_explain\.py, line \d+", message)


def test_a_child_that_never_began_is_explained_by_what_it_is_forked_from(tmp_path):
    log = tmp_path / "preload.log"
    log.write_text("Traceback (most recent call last):\n  File ...\nRuntimeError: Could not determine home directory.\n")
    assert "has ended: RuntimeError: Could not determine home directory. Log:" in _not_started(log)


def test_a_child_that_never_began_and_left_no_word_says_so(tmp_path):
    assert "it left no word" in _not_started(tmp_path / "none.log")
