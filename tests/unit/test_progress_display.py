"""The progress of a run, on a terminal and without one."""

import io
import os
import sys
import time

import pytest
from rich.console import Console

from switchyard.components.progress import no_progress_bars
from switchyard.pipelines.terminal.progress import LiveDisplay, PlainDisplay


@pytest.fixture
def out():
    return io.StringIO()


@pytest.fixture
def display(out):
    return PlainDisplay(Console(file=out, width=200), silence=0.2)


def lines(out):
    return [line.partition(" ")[2] for line in out.getvalue().splitlines()]


def test_a_silent_stage_is_shown_as_running(display, out):
    with display:
        display.status("transform", "running")
        time.sleep(0.6)
        display.status("transform", "ran", 0.6)
    assert lines(out)[0] == "transform: running"
    assert "transform: running, 0 s" in lines(out)[1:-1]
    assert lines(out)[-1] == "transform: ran, 0.6 s"


def test_a_silent_stage_shows_its_last_message(display, out):
    with display:
        display.status("check", "running")
        display.say("check", "importing the libraries")
        time.sleep(0.6)
    assert any(line.startswith("check: importing the libraries, ") for line in lines(out))


def test_finished_stages_are_not_shown_as_running(display, out):
    with display:
        display.status("check", "running")
        display.status("check", "failed", 1.0)
        time.sleep(0.5)
    assert lines(out) == ["check: running", "check: failed, 1.0 s"]


@pytest.mark.parametrize("kind", [PlainDisplay, LiveDisplay])
def test_a_cancelled_stage_is_cancelled_and_not_failed(kind, out):
    display = kind(Console(file=out, width=200))
    with display:
        display.status("training", "running")
        display.status("training", "cancelled", 2.0)
    assert "training: cancelled" in out.getvalue() or "■  training" in out.getvalue()
    assert "failed" not in out.getvalue()
    assert "✘" not in out.getvalue()


def test_messages_of_one_table_are_not_repeated_in_the_next(out):
    display = LiveDisplay(Console(file=out, width=200))
    with display:
        display.status("check", "ran", 1.0)
    with display:
        display.status("ingest", "ran", 2.0)
    assert out.getvalue().count("check") == 1
    assert out.getvalue().count("ingest") == 1


def test_the_output_of_libraries_is_not_shown_above_the_table_of_a_terminal(out):
    with LiveDisplay(Console(file=out, width=200, force_terminal=True)) as display:
        display.status("training", "running")
        print("WARNING: of a library", file=sys.stderr)
        print("INFO: of a library")
    assert "training" in out.getvalue()
    assert "of a library" not in out.getvalue()


def test_libraries_show_no_bars(monkeypatch):
    for name in ("TQDM_DISABLE", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    no_progress_bars()
    assert os.environ["TQDM_DISABLE"] == "1"
    assert os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] == "false"
