"""The documented exit codes are those of the code."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from switchyard.components import errors
from switchyard.components.errors import CancelledError, DataGateError, StageError, TrainingError, UserError
from switchyard.components.process.variables import DEBUG
from switchyard.pipelines.commands.options import EXIT_CODES, handle_errors
from tests.command import REPOSITORY, environment

DOCUMENT = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
CODES = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}


def ended(error):
    @click.command()
    @handle_errors
    def command():
        raise error

    return CliRunner().invoke(command)


def test_the_table_has_every_code_and_no_other():
    table = DOCUMENT.partition("## Exit codes")[2].partition("\n## ")[0]
    assert sorted(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == sorted(CODES.values())


def test_the_help_has_every_code_and_no_other():
    assert sorted(map(int, re.findall(r"^ +(\d+)  ", EXIT_CODES, re.MULTILINE))) == sorted(CODES.values())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("x"), CODES["EXIT_BAD_INPUT"]),
        (DataGateError("x"), CODES["EXIT_DATA_GATE"]),
        (StageError("x"), CODES["EXIT_FAILED"]),
        (CancelledError(), CODES["EXIT_FAILED"]),
        (TrainingError("x"), CODES["EXIT_FAILED"]),
        (KeyboardInterrupt(), CODES["EXIT_FAILED"]),
        (PermissionError(13, "Permission denied", "/x"), CODES["EXIT_BAD_INPUT"]),
        (KeyError("x"), CODES["EXIT_FAILED"]),
        (EOFError(), CODES["EXIT_FAILED"]),
        (RecursionError("too deep"), CODES["EXIT_FAILED"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_ends_with_its_code_and_without_a_trace(error, code):
    done = ended(error)
    assert done.exit_code == code
    assert done.output.startswith("error: ")
    assert "Traceback" not in done.output
    assert "Aborted" not in done.output


def test_an_unexpected_error_is_raised_in_debug_mode(monkeypatch):
    monkeypatch.setenv(DEBUG, "1")
    assert isinstance(ended(KeyError("x")).exception, KeyError)


MESSAGES = re.findall(r"^\| `([^`]+)` \|", DOCUMENT.partition("## The most common messages")[2], re.MULTILINE)


def test_the_twenty_most_common_messages_are_explained():
    assert len(MESSAGES) >= 20


@pytest.mark.parametrize("message", MESSAGES)
def test_the_documented_messages_are_those_of_the_code(message):
    said = max(re.split(r"…|tracking\.uri: |label: ", message), key=len).strip(" '`?:(),")
    root = Path(__file__).parents[2]
    sources = [*root.glob("components/**/*.py"), *root.glob("pipelines/**/*.py")]
    # As sources break long texts over lines, and put names into them.
    texts = [re.sub(r'"\s*f?"', "", file.read_text()) for file in sources]
    words = [w for w in re.split(r"SIGKILL|\. (?=[A-Z])|; ", said) if w]
    assert all(any(w.strip() in text for text in texts) for w in words), words


def test_the_exit_code_is_kept_where_standard_output_is_closed():
    code = "from switchyard.components.compat.python_exit import exit_at_once; exit_at_once(2)"
    command = ["bash", "-c", 'exec "$@" >&-', "bash", sys.executable, "-c", code]
    assert subprocess.run(command, env=environment(PYTHONPATH=REPOSITORY), check=False).returncode == 2
