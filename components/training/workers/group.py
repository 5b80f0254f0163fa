"""Runs local worker processes with PyTorch's launcher, and reads their messages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from switchyard.components.errors import StageError
from switchyard.components.process import interpreter, variables
from switchyard.components.training.contract import Report, TrainResult
from switchyard.components.training.job import TrainingJob
from switchyard.components.training.workers.launcher import RESTARTS
from switchyard.components.training.workers.protocol import Listener, train_result
from switchyard.components.training.workers.train_job_settings import settings
from switchyard.components.training.workers.training_process import STAGES_OWN, training_server

JOB = "job.json"
_STOP_SECONDS = 30


def train(job: TrainingJob, report: Report) -> TrainResult:
    """Trains for a stage; raises the same errors as `Trainer.train`.

    Keras trains in the stage's process, which has imported TensorFlow; other trainers run in a process without the stages'
    libraries.

    Raises:
        StageError: the training process died, or its workers exceeded the limit of restarts.
    """
    if job.accelerator.nodes > 1:
        given = settings()
        if given:
            from switchyard.components.training.workers import (
                train_job,  # imports the Kubernetes client, which local runs do not need
            )

            return train_job.train(job, report, given)
    framework = job.settings.framework
    if framework == STAGES_OWN:
        return train_here(job, report)

    def reported(step: int, metrics: Mapping[str, float]) -> bool:
        report(step, metrics)
        return False

    with training_server(framework) as server:
        return train_result(server.train(job, reported) or {})


def train_here(job: TrainingJob, report: Report) -> TrainResult:
    """Trains in this process or in the number of processes that the job requires; raises the same errors as `Trainer.train`.

    Raises:
        StageError: the workers exceeded the limit of restarts.
    """
    processes = job.processes()
    return job.run(report) if processes == 1 else _train(job, processes, report)


def _train(job: TrainingJob, processes: int, report: Report) -> TrainResult:
    state = Path(job.state)
    state.mkdir(parents=True, exist_ok=True)
    file = state / JOB
    file.write_text(job.model_dump_json(), encoding="utf-8")
    listener = Listener(report, lambda line: sys.stderr.write(f"{line}\n"))
    pipe = subprocess.PIPE
    launcher = interpreter.start(
        "switchyard.components.training.workers.launcher",
        arguments(processes, file),
        stdin=pipe,
        stdout=pipe,
        text=True,
        env=_environment(),
    )
    assert launcher.stdout is not None
    try:
        for line in launcher.stdout:
            listener.dispatch(line.rstrip("\n"))
        code = launcher.wait()
    finally:
        _stop(launcher)
    if listener.result is None:
        raise StageError(f"training: the workers ended with exit code {code}, after {RESTARTS} restarts. The log has the reason.")
    return listener.result


def arguments(processes: int, job: Path) -> list[str]:
    """Returns the launcher's arguments for workers on this machine only."""
    counts = [f"--nproc-per-node={processes}", f"--max-restarts={RESTARTS}"]
    return ["--standalone", "--local-addr=127.0.0.1", *counts, "-m", "switchyard.components.training.workers.worker", str(job)]


def _environment() -> dict[str, str]:
    # Workers on one machine communicate over the loopback interface.
    return {**os.environ, "GLOO_SOCKET_IFNAME": "lo", variables.STAGE_PIPE: "1"}


def _stop(launcher: subprocess.Popen[str]) -> None:
    if launcher.poll() is None:
        launcher.send_signal(signal.SIGTERM)
        try:
            launcher.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    launcher.stdin.close()
    launcher.stdout.close()
