"""What cannot be compiled."""

from __future__ import annotations

from switchyard.components.errors import UserError


class CompileError(UserError):
    """A node that Kubeflow Pipelines cannot run, with the reason and what to do instead."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"node {node!r} cannot be compiled for Kubeflow Pipelines: {reason}")
