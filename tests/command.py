"""The `switchyard` command, run as a user runs it."""

import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parent.parent
EXAMPLES = REPOSITORY / "pipelines" / "examples"
BREAST_CANCER = EXAMPLES / "breast_cancer" / "pipeline.yaml"
DIGITS = EXAMPLES / "digits" / "pipeline.yaml"
COMMAND = [sys.executable, "-m", "switchyard"]
# The third trainer is one of a user's own.
SKLEARN = REPOSITORY / "tests" / "contract" / "sklearn_trainer.py"
TRAINERS = {"tensorflow": "tensorflow", "pytorch": "pytorch", "sklearn": f"{SKLEARN}:SklearnTrainer"}
BEFORE_TRAINING = ["ingest", "statistics", "schema", "validation", "baseline", "data_gate", "transform"]
STAGES = [*BEFORE_TRAINING, "training", "evaluation", "infra_validation", "registry", "report"]
# What compares with the registry is done in every run.
ANEW = {"baseline", "data_gate", "evaluation", "registry", "report"}
# For models that are looked at and do not compete.
NO_CONTEST = ["--set", "evaluation.improvement=null"]


def settings_of(trainer):
    """Returns the options by which the shared workspace was trained with one of `TRAINERS`."""
    fewer_epochs = ["--set", "trainer.hyperparameters.epochs=5"] if trainer == "sklearn" else []
    return ["--trainer", TRAINERS[trainer], *fewer_epochs]


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
    # pytest's own differ between tests, and two commands of different variables share no warm process.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", **{k: str(v) for k, v in extra.items()}}


def uses_warm_processes():
    """Whether commands use warm processes in this session: with SWITCHYARD_WARM=1, and no CI."""
    return os.environ["SWITCHYARD_WARM"] != "0" and not os.environ.get("CI")


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


class Forked:
    """The command in a fork of a warm process, with the methods of `WarmCommand`."""

    def __call__(self, *arguments, cwd=REPOSITORY, env=None):
        return switchyard(*arguments, cwd=cwd, env=env)

    def run(self, pipeline, workspace, *arguments, expect=0):
        return run(pipeline, workspace, *arguments, expect=expect)

    def close(self):
        """They end with the session."""


class WarmCommand:
    """The command in a process that has its imports behind it, see `tests.warm_cli`.

    A call that does not end with its answer (a timeout of the test, an interrupt, a dead process) ends the process: the next
    call starts another, and reads no answer of this one.
    """

    def __init__(self, process=(sys.executable, "-m", "tests.warm_cli")):
        self._command, self._process = process, None
        # Of now: a test that changes variables may start the next process.
        self._environment = environment(PYTHONPATH=REPOSITORY)
        self._start()

    def _start(self):
        self._process = subprocess.Popen(
            self._command,
            cwd=REPOSITORY,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"

    def __call__(self, *arguments, cwd=REPOSITORY, env=None):
        extra = {name: str(value) for name, value in (env or {}).items()}
        request = {"arguments": [str(a) for a in arguments], "cwd": str(cwd), "env": extra}
        try:
            if not self._process:
                self._start()
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer, f"the process ended with {self._process.wait()}"
        except BaseException:
            self._kill()
            raise
        return Finished(**json.loads(answer))

    def _kill(self):
        process, self._process = self._process, None
        if process:
            if process.poll() is None:
                kill_with_children(process)
            process.stdout.close()
            with suppress(BrokenPipeError):
                process.stdin.close()

    def run(self, pipeline, workspace, *arguments, expect=0):
        done = self("run", pipeline, "--workspace", workspace, "--json", *arguments)
        assert done.code == expect, f"exit code {done.code}, expected {expect}\n{done.stdout}\n{done.stderr}"
        return done

    def close(self):
        if self._process:
            self._process.stdin.close()
            self._process.wait(60)
            self._process.stdout.close()


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


def lines_until(process, text, timeout=400):
    """Reads stderr until a line holds `text`; returns all lines read."""
    lines, deadline = [], time.monotonic() + timeout
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
        assert time.monotonic() < deadline, f"no {text!r} in\n{''.join(lines)}"
    raise AssertionError(f"the process ended before {text!r}:\n{''.join(lines)}\n{process.stdout.read()}")


def free_port():
    """Returns a port below those that the kernel gives to Beam and others, one of which took a free one of those in between."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.SystemRandom().randrange(15_000, 32_000)))
            return probe.getsockname()[1]


def wait_for(url, seconds=90):
    """Waits until a server answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.3)


@contextmanager
def mlflow_server(folder, port=None):
    """A tracking server with its database and files in `folder`; gives its address."""
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 's.db'}"]
    command += ["--port", str(port), "--artifacts-destination", str(folder / "files"), "--workers", "1"]
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            command, env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"), cwd=folder, stdout=log, stderr=log
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/health", 300)
            yield f"http://127.0.0.1:{port}"
        finally:
            kill_with_children(server)


def until_sent(workspace):
    """Waits for the stages of an unchanged run, which a fork of a warm process sends to MLflow after the run's end."""
    deadline = time.monotonic() + 180
    while any((workspace / "tracking").iterdir()):
        assert time.monotonic() < deadline, "the records of an unchanged run's stages were not sent"
        time.sleep(0.1)


def kill_with_children(process):
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def all_gone(processes):
    """Waits until processes have ended: one that is importing handles a signal afterwards, on a busy machine after a minute."""
    deadline = time.monotonic() + 180
    while any(alive(p.pid) for p in processes):
        assert time.monotonic() < deadline, "a stage outlived its runner"
        time.sleep(0.1)
