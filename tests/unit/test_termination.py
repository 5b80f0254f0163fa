"""SIGTERM ends a task in any code. Each case runs in a separate process, since signals reach the main thread."""

import subprocess
import sys

import pytest

from tests.command import REPOSITORY, environment

# A shell's or a supervisor's own choice is not the container's. In the process itself: a function between fork and exec makes
# Python fork with gRPC's handlers, where a test beside has imported gRPC, and its poller then aborts now and then.
DEFAULT = "import signal; signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
HEAD = """
import os, signal, time
from switchyard.pipelines.runners.kubeflow.task import termination
from switchyard.pipelines.runners.kubeflow.task.termination import until_terminated

# A case that waits for the signal to come again need not wait for a second.
termination._AGAIN_SECONDS = {again}


def told_to_end():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)


before = signal.getsignal(signal.SIGTERM)
try:
    with until_terminated():
        {body}
except Exception as error:
    print(type(error).__name__, "after", type(error.__context__).__name__)
assert signal.getsignal(signal.SIGTERM) is before
"""
ENDLESS = """
        for _ in range(200):
            time.sleep(0.1)
"""
CASES = {
    "in a loop": ("told_to_end()", "TerminatedError after NoneType"),
    "lost in a destructor": (
        f"""
        class Library:
            def __del__(self):
                told_to_end()
        Library()
        {ENDLESS}""",
        "TerminatedError after NoneType",
    ),
    "swallowed by a library": (
        f"""
        try:
            told_to_end()
        except Exception:
            pass
        {ENDLESS}""",
        "TerminatedError after NoneType",
    ),
    "another error is made of it": (
        """
        failed = False
        try:
            told_to_end()
        except Exception:
            failed = True
        if failed:
            raise TypeError("bindings failed")""",
        "TerminatedError after TypeError",
    ),
    "what is left in order is not cut short": (
        """
        try:
            told_to_end()
        finally:
            time.sleep(0.5)
            print("in order", end=" ")""",
        "in order TerminatedError after NoneType",
    ),
    "what is to be done at once does not wait for a library that hears no signal": (
        """
        import hashlib, threading
        from switchyard.components.process.at_termination import at_termination
        def duty():
            print("at once", end=" ", flush=True)
        def long():
            hashlib.pbkdf2_hmac("sha256", b"", b"", 3_000_000)
            print("after the library", end=" ", flush=True)
        with at_termination(duty):
            threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
            long()""",
        "at once TerminatedError after NoneType",
    ),
    "a failure of its own": ("raise ValueError('mine')", "ValueError after NoneType"),
    "nothing": ("pass", ""),
}


def run(code):
    return subprocess.run(
        [sys.executable, "-c", DEFAULT + code],
        cwd=REPOSITORY,
        env=environment(PYTHONPATH=REPOSITORY),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_reason_of_a_terminated_task_is_written_before_a_library_that_hears_no_signal_returns():
    """Under Argo a second is left, and the exception may not propagate in it."""
    body = """
import hashlib, os, signal, sys, threading
from switchyard.pipelines.runners.kubeflow.task.failure import report_failure
from switchyard.pipelines.runners.kubeflow.task.termination import until_terminated

with report_failure(), until_terminated():
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 3_000_000)
    print("after the library", file=sys.stderr, flush=True)
    raise AssertionError
"""
    done = run(body)
    reason = "switchyard: error: terminated (SIGTERM)"
    assert done.returncode == 1, done.stderr
    assert done.stderr.count(reason) == 1
    assert done.stderr.startswith(reason), "before the library returns"


@pytest.mark.parametrize("case", CASES)
def test_sigterm_ends_running_code(case):
    body, said = CASES[case]
    again = "0.2" if "sleep" in body else "1.0"
    done = run(HEAD.replace("{again}", again).replace("{body}", body.strip("\n ")))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == said
