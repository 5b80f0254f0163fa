"""Name of a runner -> its class, imported on first use."""

from __future__ import annotations

import importlib
from typing import Any

from switchyard.components.errors import UserError, did_you_mean

RUNNERS = {
    "local": "switchyard.pipelines.runners.local.runner:LocalRunner",
    "kfp-local": "switchyard.pipelines.runners.kubeflow.local.runner:KfpLocalRunner",
    "kfp-docker": "switchyard.pipelines.runners.kubeflow.local.runner:KfpDockerRunner",
}


def runner_class(name: str) -> Any:
    """Returns the runner's class.

    Raises:
        UserError: there is none of that name.
    """
    if name not in RUNNERS:
        raise UserError(f"--runner {name!r}: is no runner; allowed: {', '.join(RUNNERS)}.{did_you_mean(name, RUNNERS)}")
    module, _, attribute = RUNNERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
