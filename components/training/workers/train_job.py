"""Trains on several nodes of a cluster by a Kubeflow Trainer TrainJob, which the training stage creates, follows and deletes.

The job's nodes run PyTorch's launcher and Switchyard's workers, for every trainer. Their files are on a claim that the nodes
and the stage mount at the same path: copies of the stage's inputs, the user's code, checkpoints, the exported model.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from switchyard.components.data.summary import FILE as DATASET
from switchyard.components.errors import StageError
from switchyard.components.process import variables
from switchyard.components.process.at_termination import at_termination
from switchyard.components.progress import say
from switchyard.components.tracking.context import RunContext
from switchyard.components.training.contract import Report, TrainResult
from switchyard.components.training.job import TrainingJob
from switchyard.components.training.trainers import trainer_class
from switchyard.components.training.workers import lease
from switchyard.components.training.workers.kubernetes import TrainJobClient
from switchyard.components.training.workers.launcher import RESTARTS
from switchyard.components.training.workers.lease import Lease
from switchyard.components.training.workers.protocol import Listener
from switchyard.components.training.workers.train_job_settings import TrainJobSettings
from switchyard.components.user_code.loading import UserCode, file_of, is_file

API_VERSION = "trainer.kubeflow.org/v1alpha1"
_PORT = 29400  # of Kubeflow Trainer's headless service


def train(job: TrainingJob, report: Report, given: TrainJobSettings) -> TrainResult:
    """Trains the job on the cluster and copies the exported model to `job.export_dir`.

    Raises:
        UserError, TrainingError: a worker failed, see `Trainer.train`.
        StageError: the TrainJob failed or cannot be created.
    """
    accelerator = job.accelerator
    per_node = trainer_class(job.settings.framework)().processes(accelerator)
    name = _name(job)
    folder = Path(given.path) / "switchyard" / name
    say(f"copying the examples to {folder}")
    shared = _share(job, folder)
    file = folder / "job.json"
    file.write_text(shared.model_dump_json(), encoding="utf-8")
    listener = Listener(report, lambda line: sys.stderr.write(f"{line}\n"))
    manifest = train_job(given, name, file, nodes=accelerator.nodes, processes=per_node)
    with Lease(_lease(file)), TrainJobClient(manifest) as running, at_termination(running.delete):
        running.follow(listener)
    if listener.result is None:
        raise StageError(f"training: TrainJob {name} ended without a result; its log is above.")
    job.export_dir.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(shared.export_dir, job.export_dir, dirs_exist_ok=True)
    shutil.rmtree(folder)
    return listener.result


def train_job(given: TrainJobSettings, name: str, job_file: Path, *, nodes: int, processes: int) -> dict[str, Any]:
    """Returns the TrainJob's manifest.

    It uses only fields that Kubeflow Trainer 2.0 to 2.3 share; others (volumes) belong to the training runtime.

    Args:
        given: the cluster's settings.
        name: name of the TrainJob.
        job_file: `TrainingJob` as JSON, on the claim.
        nodes: number of nodes.
        processes: number of processes per node.
    """
    launcher = [
        "python3",
        "-m",
        "switchyard.components.training.workers.launcher",
        f"--max-restarts={RESTARTS}",
        f"--rdzv-id={name}",
    ]
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint=$(PET_MASTER_ADDR):{_PORT}"]
    environment = {**given.environment, variables.NODE: "1", variables.LEASE: lease.variable(_lease(job_file))}
    trainer: dict[str, Any] = {
        "image": given.image,
        "command": [*launcher, *rendezvous, "-m", "switchyard.components.training.workers.worker", str(job_file)],
        "numNodes": nodes,
        "numProcPerNode": processes,
        "env": [{"name": k, "value": v} for k, v in environment.items()],
    }
    if given.resources:
        trainer["resourcesPerNode"] = {"limits": given.resources, "requests": given.resources}
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "switchyard"}},
        "spec": {
            "runtimeRef": {"apiGroup": API_VERSION.partition("/")[0], "kind": given.kind, "name": given.runtime},
            "trainer": trainer,
        },
    }


def _lease(job_file: Path) -> Path:
    return job_file.with_name("lease")


def _name(job: TrainingJob) -> str:
    """Returns a name that stays the same when a task is retried, so that the retry finds its job and its checkpoints."""
    framework = re.sub(r"[^a-z0-9]+", "-", trainer_class(job.settings.framework).name.lower()).strip("-")
    key = json.dumps([RunContext.current().kfp_run_id or job.state, job.settings.model_dump(mode="json")], sort_keys=True)
    return f"switchyard-{framework[:20]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def _share(job: TrainingJob, folder: Path) -> TrainingJob:
    """Copies the nodes' inputs to the claim, except those already on it; returns the job with the new paths."""
    folder.mkdir(parents=True, exist_ok=True)

    def on_claim(uri: str) -> bool:
        return Path(uri).is_relative_to(folder.parent.parent)

    def copied(uri: str, name: str) -> str:
        if on_claim(uri):
            return uri
        target = folder / name
        if not target.exists():
            # Atomic: an earlier attempt may have been interrupted here.
            shutil.rmtree(folder / f"new_{name}", ignore_errors=True)
            shutil.copytree(uri, folder / f"new_{name}", ignore=shutil.ignore_patterns(".switchyard", "__pycache__"))
            (folder / f"new_{name}").rename(target)
        return str(target)

    def copied_code(code: UserCode | None, name: str) -> UserCode | None:
        if code is None:
            return None
        path = Path(code.path)
        return replace(code, path=str(Path(copied(str(path.parent), name)) / path.name))

    shutil.copy(Path(job.examples) / DATASET, folder / DATASET)
    settings, framework = job.settings, job.settings.framework
    if is_file(framework):
        path = file_of(framework)
        framework = f"{Path(copied(str(path.parent), 'trainer')) / path.name}:{framework.rpartition(':')[2]}"
    codes = {"code": "code", "loss_code": "loss", "callbacks_code": "callbacks"}
    copies = {field: copied_code(getattr(settings, field), name) for field, name in codes.items()}
    return TrainingJob(
        settings=settings.model_copy(update={**copies, "framework": framework}),
        examples=str(folder),
        transformed_examples=copied(job.transformed_examples, "transformed_examples"),
        state=str(folder / "state"),
        start=copied(job.start, "start") if job.start else None,
    )
