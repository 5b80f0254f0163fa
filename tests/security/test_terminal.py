"""A name or a value of data that is a terminal's command, or a line of its own, is shown as the text that it is."""

import io
import logging

import click
import pytest
from click.testing import CliRunner
from rich.table import Table

from switchyard.components import progress
from switchyard.components.errors import UserError
from switchyard.components.ingest.bad_rows import BadRows
from switchyard.components.text import redaction
from switchyard.components.text.visible import in_a_line, visible
from switchyard.pipelines.commands.options import handle_errors
from switchyard.pipelines.terminal.console import PlainTextConsole

pytestmark = pytest.mark.core
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202e"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202e"


def test_control_characters_are_escaped_and_all_else_is_unchanged():
    assert visible(HOSTILE) == SHOWN
    assert visible("two\nlines\tü 😀 漢字\r\n") == "two\nlines\tü 😀 漢字\n"
    assert in_a_line(["a", "b\nOK: all fine", "c\td\r\ne"]) == r"a, b\nOK: all fine, c\td\r\ne"


def test_an_error_escapes_control_characters():
    @click.command()
    @handle_errors
    def command():
        raise UserError(f"column {HOSTILE}")

    assert CliRunner().invoke(command, color=True).stderr.splitlines()[-1].endswith(f"column {SHOWN}")


def test_a_column_that_is_missing_is_refused_in_one_line(warm, tmp_path):
    (tmp_path / "d.csv").write_text(f'a,"b{HOSTILE.strip()}\nOK: all fine",c\n1,2,3\n', newline="")
    (tmp_path / "p.yaml").write_text("name: x\ndata: {path: d.csv}\nlabel: zz\n")

    done = warm("run", "p.yaml", cwd=tmp_path)

    assert done.code == 2
    assert f"Columns: a, b{SHOWN}\\nOK: all fine, c." in done.stderr
    assert "\x1b" not in done.stderr


def test_a_bad_row_is_shown_in_one_line():
    bad = BadRows(0)
    bad.add("x.csv", "2 fields where the header has 3", f"1,2\n{HOSTILE}")

    with pytest.raises(UserError) as refused:
        bad.check()

    assert str(refused.value).splitlines()[-1] == f"  x.csv: 2 fields where the header has 3: 1,2\\n{SHOWN}"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_escapes_control_characters(terminal):
    out = io.StringIO()
    table = Table("column", style="bold")
    table.add_row(HOSTILE)

    PlainTextConsole(file=out, force_terminal=terminal, width=80, markup=False).print(table)

    assert r"\x1b]0;owned" in out.getvalue()
    assert "\x1b]" not in out.getvalue()
    assert ("\x1b[1m" in out.getvalue()) == terminal, "Rich's own commands stay"


def test_progress_and_logs_escape_control_characters(monkeypatch):
    said = []
    progress.set_sink(said.append)
    try:
        progress.warn(HOSTILE)
    finally:
        progress.set_sink(None)
    assert said == [f"warning: {SHOWN}"]

    record = redaction._MaskedRecords(logging.LogRecord)("x", logging.INFO, "x", 1, "column %s", (HOSTILE,), None)
    assert record.getMessage() == f"column {SHOWN}"
