"""The message of a failed stage gives the reason, not its consequences."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from switchyard.components.errors import KINDS, Failure, StageError, TerminatedError, UserError
from switchyard.components.failure import classify, expected
from switchyard.components.process.full_disk import disk_is_full
from switchyard.pipelines.runners.kubeflow.task.failure import last_words, read_last_words
from switchyard.pipelines.runners.local.process import _not_started


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
    assert found.kind == kind
    assert found.message.startswith(message)


@pytest.mark.parametrize("error", [SystemExit(), SystemExit(3), SystemExit("bye"), KeyboardInterrupt()], ids=repr)
def test_code_that_exits_the_process_is_reported_with_its_line(error):
    try:
        raise error
    except BaseException as ended:
        found = classify(ended, Path("x.log"))
    assert found.kind == "user"
    assert type(error).__name__ in found.message
    assert re.search(r"test_explain\.py, line \d+", found.message)


def test_beams_additions_to_a_user_error_are_removed():
    caught = raised(UserError("bad row [while running 'read/ParDo']"), RuntimeError("bundle failed"))
    assert expected(caught) == classify(caught, None) == Failure("user", "bad row")


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_crosses_processes_as_json_and_is_raised_with_its_class(kind):
    found = Failure(**json.loads(json.dumps(asdict(Failure(kind, "why\nindeed")))))
    with pytest.raises(KINDS[kind], match="why\nindeed") as error:
        raise found.error()
    assert (found.kind, found.exit_code) == (error.value.kind, error.value.exit_code)


@pytest.mark.parametrize(("code", "kind"), [(0, "stage"), (1, "stage"), (2, "user"), (3, "gate"), (4, "stage"), (137, "stage")])
def test_an_exit_code_tells_the_kind_of_failure(code, kind):
    assert Failure.of_exit_code(code, "x") == Failure(kind, "x")


@pytest.mark.parametrize("stage", ["", "data_gate"])
def test_the_last_message_of_a_container_is_read_as_it_was_written(stage):
    written = Failure("gate", "label: (a) [b]")
    assert read_last_words(last_words(written, stage)) == (written, stage)
    assert read_last_words("OOMKilled") is None


def test_a_child_that_never_started_is_explained_by_its_fork_server(tmp_path):
    log = tmp_path / "preload.log"
    log.write_text("Traceback (most recent call last):\n  File ...\nRuntimeError: Could not determine home directory.\n")
    assert "has ended: RuntimeError: Could not determine home directory. Log:" in _not_started(log)


def test_a_child_that_never_started_and_wrote_nothing_is_reported(tmp_path):
    assert "it printed nothing" in _not_started(tmp_path / "none.log")


def test_a_file_system_without_blocks_is_not_a_full_disk():
    assert disk_is_full(Path("/proc/switchyard")) is None
