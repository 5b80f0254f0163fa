"""MODEL, as serve, predict, drift and deploy take it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from switchyard.components.bundle.source import ModelRef, OpenedModel, name_and_selector
from switchyard.components.bundle.source import open_model as open_any
from switchyard.components.text.redaction import take_credentials
from switchyard.pipelines.workspace import registry_uri


def model_ref(model: str, tracking_uri: str | None, workspace: Path | None, *, trust: bool) -> ModelRef | None:
    """Returns the model of the registry that MODEL names; None: it is a folder or URI.

    Raises:
        UserError: there is no such model, version or alias, or no workspace.
        StageError: the registry is unreachable.
    """
    parts = name_and_selector(model)
    if parts is None:
        return None
    ref = ModelRef(registry_uri(tracking_uri, workspace), *parts, trust=trust)
    ref.version()
    return ref


def open_model(
    model: str, tracking_uri: str | None, workspace: Path | None, *, trust: bool, digest: str | None = None
) -> AbstractContextManager[OpenedModel]:
    """Opens MODEL by `components.bundle.source.open_model`.

    Args:
        model: as the command line has it.
        tracking_uri: of MLflow's server or database; None: the workspace's.
        workspace: the one given, if any.
        trust: take a model that no registered digest vouches for.
        digest: that the manifest of a folder or URI must have.
    """
    if name_and_selector(model):
        uri: str | None = registry_uri(tracking_uri, workspace)
    else:  # needs no workspace
        uri = tracking_uri and take_credentials(tracking_uri)
    return open_any(model, uri, trust=trust, digest=digest)
