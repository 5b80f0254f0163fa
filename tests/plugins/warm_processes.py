"""With SWITCHYARD_WARM=1 in the environment of the session its commands use warm processes, in a folder of the session's own."""

import os
import shutil
import subprocess
import tempfile

import pytest

from tests.command import COMMAND, REPOSITORY, environment, uses_warm_processes

_FOLDER = pytest.StashKey[str]()


def pytest_configure(config):
    """Makes the folder, in the process that starts the others."""
    if uses_warm_processes() and not hasattr(config, "workerinput"):
        config.stash[_FOLDER] = os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="warm-")


def pytest_unconfigure(config):
    """Ends the warm processes."""
    if folder := config.stash.get(_FOLDER, None):
        command = [*COMMAND, "warm", "stop"]
        subprocess.run(command, env=environment(PYTHONPATH=REPOSITORY), check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)
