"""The fixture `warm`: each call returns its own answer."""

import signal
import sys

import pytest

from tests.command import WarmCommand

# In place of the command, whose imports take ten seconds: answers with its first argument, after as many seconds as the second.
ECHO = """
import json, sys, time
print("ready", flush=True)
for line in sys.stdin:
    word, seconds = json.loads(line)["arguments"]
    if word == "die":
        sys.exit(3)
    time.sleep(float(seconds))
    print(json.dumps({"code": 0, "stdout": word, "stderr": ""}), flush=True)
"""


@pytest.fixture
def echo():
    command = WarmCommand([sys.executable, "-c", ECHO])
    yield command
    command.close()


class TooLate(Exception):
    pass


def test_after_a_call_that_was_cut_off_the_next_one_reads_its_own_answer(echo):
    assert echo("first", 0).stdout == "first"

    def cut_off(*_):
        raise TooLate

    before = signal.signal(signal.SIGALRM, cut_off)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(TooLate):
            echo("late", 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert echo("next", 1.5).stdout == "next"


def test_after_a_dead_process_the_next_call_starts_another(echo):
    with pytest.raises(AssertionError, match="the process ended with 3"):
        echo("die", 0)
    assert echo("next", 0).stdout == "next"
