"""A folder of unfinished work is used by one process at a time."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from switchyard.components.process.folder_lock import locked_folder

HOLDER = """
import sys
from pathlib import Path
from switchyard.components.process.folder_lock import locked_folder
with locked_folder(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    folder = tmp_path / "state" / "training-1"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process, folder
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_waits_until_the_first_has_removed_its_folder(holder):
    process, folder = holder
    waits = []

    def wait():
        waits.append(folder.exists())
        if len(waits) == 2:  # like a stage that is done
            shutil.rmtree(folder)
            process.stdin.close()

    with locked_folder(folder, wait) as waited:
        assert waited
        assert folder.is_dir()
    assert waits[:2] == [True, True]


def test_a_killed_process_leaves_its_folder_to_the_next_one(holder):
    process, folder = holder
    (folder / "ledger.json").write_text("{}")
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked_folder(folder, lambda: pytest.fail("nothing to wait for")) as waited:
        assert not waited
        assert (folder / "ledger.json").exists()


def test_a_wait_can_be_ended(holder):
    _, folder = holder
    with pytest.raises(KeyboardInterrupt), locked_folder(folder, lambda: os.kill(os.getpid(), signal.SIGINT)):
        pytest.fail("another process holds it")
