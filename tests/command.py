"""The `switchyard` command, run as a user runs it."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
EXAMPLES = REPOSITORY / "pipelines" / "examples"
BREAST_CANCER = EXAMPLES / "breast_cancer" / "pipeline.yaml"
DIGITS = EXAMPLES / "digits" / "pipeline.yaml"
COMMAND = [sys.executable, "-m", "pipelines.cli"]


@dataclass
class Finished:
    code: int
    stdout: str
    stderr: str

    @property
    def json(self):
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def stages(self):
        return {name: stage["status"] for name, stage in self.json["stages"].items()}


def environment(**extra):
    return {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **{k: str(v) for k, v in extra.items()}}


def switchyard(*arguments, cwd=REPOSITORY, timeout=400, env=None):
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(PYTHONPATH=REPOSITORY, **(env or {})),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def run(pipeline, workspace, *arguments, expect=0, **kwargs):
    done = switchyard("run", pipeline, "--workspace", workspace, "--json", *arguments, **kwargs)
    assert done.code == expect, f"exit code {done.code}, expected {expect}\n{done.stdout}\n{done.stderr}"
    return done


def start(*arguments, **extra):
    """Starts the command; its stderr is read line by line with `lines_until`."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment(PYTHONPATH=REPOSITORY, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_until(process, text, timeout=200):
    """Reads stderr until a line holds `text`; returns all lines read."""
    lines, deadline = [], time.monotonic() + timeout
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
        assert time.monotonic() < deadline, f"no {text!r} in\n{''.join(lines)}"
    raise AssertionError(f"the process ended before {text!r}:\n{''.join(lines)}\n{process.stdout.read()}")
