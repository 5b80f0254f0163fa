"""What a person is told of a stage that failed: the reason, not what came of it."""

from pathlib import Path

import pytest

from components.errors import StageError, TerminatedError, UserError
from pipelines.runners.stage_process import explain


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
    found = explain(raised(*errors), Path("x.log"))
    assert found[0] == kind
    assert found[1].startswith(message)
