"""Resources of a training stage that trains on the nodes of a TrainJob: for the stage's pod and for each node."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import PurePosixPath

from switchyard.components.errors import UserError
from switchyard.components.process import variables
from switchyard.components.training.workers.train_job_settings import TrainJobSettings
from switchyard.pipelines.config.kubeflow import StageResources, device
from switchyard.pipelines.config.pipeline import PipelineConfig


def on_several_nodes(config: PipelineConfig, stage: str, wanted: StageResources, image: str) -> StageResources:
    """Returns the resources of the stage's own pod, which only waits; the configured resources go to each node.

    Args:
        config: config with `trainer.accelerator.nodes` above 1.
        stage: name of the training stage.
        wanted: configured resources of the stage.
        image: default image of the pipeline.

    Raises:
        UserError: the config is invalid for training on several nodes.
    """
    accelerator, job = config.trainer.accelerator, config.kubeflow.train_job
    if job is None:
        raise UserError(
            f"trainer.accelerator.nodes: {accelerator.nodes} nodes run as a TrainJob of Kubeflow Trainer, which needs "
            f"kubeflow.train_job for its data; set it, e.g. {{path: /mnt/training}} (docs/kubeflow.md), or set nodes to 1."
        )
    if accelerator.kind not in ("cpu", "gpu"):
        raise UserError(
            f"trainer.accelerator.kind: several nodes need cpu or gpu, received {accelerator.kind!r}; the stage cannot "
            "detect the nodes' devices."
        )
    if not any(PurePosixPath(job.path).is_relative_to(v.path) for v in wanted.volumes):
        raise UserError(
            f"kubeflow.train_job.path: {job.path} is not on a claim that the stage mounts; add the claim to "
            f"kubeflow.stages.{stage}.volumes as {{claim: NAME, path: {job.path}}}."
        )
    limits = {"cpu": wanted.cpu, "memory": wanted.memory}
    if wanted.accelerator:
        found = device(wanted.accelerator)
        if found.count != accelerator.count:
            raise UserError(
                f"trainer.accelerator.count: {accelerator.count} per node, but kubeflow.stages.{stage}.accelerator requests "
                f"{found.count}; set both to the same number."
            )
        limits[found.resource] = str(found.count)
    given = TrainJobSettings(
        runtime=job.runtime,
        kind=job.kind,
        path=job.path,
        image=wanted.image or config.kubeflow.image or image,
        resources={name: value for name, value in limits.items() if value},
        environment=wanted.environment,
    )
    own = {"cpu": None, "memory": None, "accelerator": None, "shared_memory": None}
    environment = {**wanted.environment, variables.TRAIN_JOB: json.dumps(asdict(given), sort_keys=True)}
    return wanted.model_copy(update={**own, "environment": environment})
