"""The cluster's settings for TrainJobs, passed by the compiler to the training stage."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

from switchyard.components.process import variables


@dataclass(frozen=True)
class TrainJobSettings:
    """The cluster's settings for a TrainJob.

    Attributes:
        runtime, kind: a TrainingRuntime of the namespace or a ClusterTrainingRuntime, with a `torch` policy, whose nodes mount
            the claim.
        path: mount path of the claim, in the stage and in the nodes.
        image: container image of the nodes.
        resources: resource limits of a node in Kubernetes' notation.
        environment: environment variables of the nodes.
    """

    runtime: str
    kind: str
    path: str
    image: str
    resources: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def settings() -> TrainJobSettings | None:
    """Returns the settings; None outside a cluster, where this machine simulates all nodes."""
    text = os.environ.get(variables.TRAIN_JOB)
    return TrainJobSettings(**json.loads(text)) if text else None
