"""What a cluster needs to know of a TrainJob, handed to the training stage by what compiled it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

from switchyard.components.process import variables


@dataclass(frozen=True)
class TrainJobSettings:
    """What a cluster needs to know of a TrainJob.

    Attributes:
        runtime, kind: a TrainingRuntime of the namespace or a ClusterTrainingRuntime, with a `torch` policy, whose nodes mount
            the claim.
        path: where the claim is mounted, in the stage and in the nodes.
        image: what the nodes run.
        resources: limits of a node, as Kubernetes writes them.
        environment: plain variables of the nodes.
    """

    runtime: str
    kind: str
    path: str
    image: str
    resources: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def settings() -> TrainJobSettings | None:
    """Returns the settings, or None: this is not a cluster, and this machine plays all nodes."""
    text = os.environ.get(variables.TRAIN_JOB)
    return TrainJobSettings(**json.loads(text)) if text else None
