"""docs/tutorial.md word by word: its files are saved, its commands run, and each ends as it says."""

import csv
import json
import re
import shlex
import signal
import subprocess
import sys

import pytest

from tests.command import REPOSITORY, environment, free_port, kill_with_children, wait_for

TEXT = (REPOSITORY / "docs" / "tutorial.md").read_text()
STEPS = re.findall(r"^```(sh|python|yaml)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
# Installation and the choice of a folder: `make demo` is tested with the examples.
BEFORE = ("make demo", "source .venv/bin/activate", "mkdir -p ~/rides && cd ~/rides")
ENDS_WITH = {"--trainer pytorch": 4, "rides_in_metres.csv": 3, "--runner kfp-local": 4}


@pytest.fixture
def shell(tmp_path):
    """Runs a command line in the tutorial's folder, with the environment's `python` and `switchyard` on the path."""
    bin_folder, folder = tmp_path / "bin", tmp_path / "rides"
    for made in (bin_folder, folder):
        made.mkdir()
    interpreter = shlex.quote(sys.executable)
    for name, arguments in (("python", ""), ("switchyard", "-m switchyard.pipelines.cli")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {interpreter} {arguments} "$@"\n')
        (bin_folder / name).chmod(0o755)
    variables = environment(PYTHONPATH=REPOSITORY)
    variables["PATH"] = f"{bin_folder}:{variables['PATH']}"

    started = []

    def start(line):
        started.append(
            subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=folder, env=variables, stdout=subprocess.PIPE, text=True)
        )
        return started[-1]

    def run(line):
        process = start(line)
        return process.communicate(timeout=600)[0], process.returncode

    yield folder, start, run
    for process in started:
        if process.poll() is None:
            kill_with_children(process)


@pytest.mark.timeout(2400)
def test_the_tutorial_from_the_data_to_the_compiled_pipeline(shell):
    folder, start, run = shell
    server, port = None, free_port()
    for language, text in STEPS:
        if language != "sh":
            (folder / {"python": "make_rides.py", "yaml": "pipeline.yaml"}[language]).write_text(text)
            continue
        for line in text.splitlines():
            if line in BEFORE:
                continue
            command = line.replace("8080", str(port))
            if line.startswith("switchyard serve"):
                server = start(command)
                wait_for(f"http://127.0.0.1:{port}/v2/health/ready", 300)
                continue
            output, code = run(command)
            assert code == next((code for part, code in ENDS_WITH.items() if part in line), 0), f"{line}\n{output}"
            if line.startswith("curl"):
                [answer] = json.loads(output)["predictions"]
                assert 0.8 < answer["probability"] < 1
                server.send_signal(signal.SIGINT)
                assert server.wait(60) == 0
    with open(folder / "scores.csv", newline="") as scores:
        rows = list(csv.DictReader(scores))
    assert len(rows) == 500
    assert list(rows[0])[:5] == ["distance", "fare", "hour", "payment", "big_tip"]
    assert (folder / "kfp.yaml").stat().st_size > 10_000
    assert "from kfp import" in (folder / "kfp_pipeline.py").read_text()


def test_the_tutorial_names_every_nonzero_exit_code():
    assert {int(code) for code in re.findall(r"exit code (?:is )?(\d)", TEXT)} == set(ENDS_WITH.values())
