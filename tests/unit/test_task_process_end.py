"""How the process of a task on Kubeflow ends: at once, and with the exit code that says how it went."""

import subprocess
import sys

import pytest

FRAME = """
import atexit, sys, time
{name}
from switchyard.pipelines.runners.kubeflow.task.process_end import end_at_once
class Library:
    def __del__(self):
        print("taken apart")
library = Library()
atexit.register(lambda: print(", files removed"))
print("done", end="")
end_at_once()
{then}
"""
AS_KFPS_EXECUTOR = "import importlib.util; sys.modules['__main__'].__spec__ = importlib.util.find_spec('kfp.dsl.executor_main')"


def ended(name, then="", stderr=subprocess.DEVNULL):
    source = FRAME.format(name=name, then=then)
    done = subprocess.run([sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=stderr, text=True, check=False)
    return done.returncode, done.stdout


def test_a_task_ends_without_library_teardown_and_loses_no_output_and_leaves_no_temporary_file():
    assert ended(AS_KFPS_EXECUTOR) == (0, "done, files removed\n")


def test_an_error_after_the_stage_is_a_failure():
    assert ended(AS_KFPS_EXECUTOR, "raise OSError('the disk is full')") == (1, "done, files removed\n")


@pytest.mark.parametrize("name", ["", "import json; sys.modules['__main__'].__spec__ = json.__spec__"])
def test_a_process_that_runs_no_task_ends_normally(name):
    assert ended(name) == (0, "done, files removed\ntaken apart\n")
