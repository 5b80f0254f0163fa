"""A TMPDIR whose path is longer than a socket's address: stages are forked all the same, and nothing is left."""

import os
import subprocess
import sys

import pytest

from tests.command import environment

CHILD = """
import os, signal, sys, tempfile
from switchyard.components.compat import fork_server
from switchyard.components.process import interpreter

servers = []

def adopted(descriptors):
    servers.append(os.fork())
    if not servers[0]:
        fork_server.serve(descriptors)
    return servers

def work(sender):
    sender.send((tempfile.gettempdir(), os.getpid()))

if __name__ == "__main__":
    if sys.argv[1] == "adopted":
        assert fork_server.adopt(adopted)
    else:
        interpreter.ensure_fork_server()
    context = interpreter.fork_server("json")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(sender,))
    process.start()
    folder, pid = receiver.recv()
    process.join()
    assert folder == tempfile.gettempdir() == os.environ["TMPDIR"], folder
    assert pid == process.pid
    for server in servers:
        os.kill(server, signal.SIGKILL)
    print("done")
"""


@pytest.mark.parametrize("server", ["adopted", "started"])
@pytest.mark.parametrize("length", [20, 80, 200, 1000])
def test_processes_are_forked_whatever_the_length_of_tmpdir(server, length, tmp_path):
    folder = tmp_path
    while len(str(folder)) < length:
        folder /= "x" * min(100, max(1, length - len(str(folder)) - 1))
    folder.mkdir(parents=True, exist_ok=True)
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    done = subprocess.run(
        [sys.executable, script, server], env=environment(TMPDIR=folder), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
    assert [name for name in os.listdir(folder) if name != script.name and not name.startswith("x")] == []
