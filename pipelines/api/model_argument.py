"""The model argument of load_model, predict, serve, drift and deploy."""

from __future__ import annotations

import os
import weakref
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from switchyard.components.bundle.model import BundleModel, load_bundle
from switchyard.components.bundle.source import ModelRef, OpenedModel
from switchyard.components.bundle.source import open_model as open_any
from switchyard.components.import_order import import_torch_first
from switchyard.components.signing.signatures import check_verifier
from switchyard.components.text.redaction import take_credentials
from switchyard.components.tracking.references import name_and_selector
from switchyard.pipelines.terminal.output import quiet
from switchyard.pipelines.workspace import registry_uri


def model_ref(
    model: str | os.PathLike[str],
    tracking_uri: str | None,
    workspace: str | os.PathLike[str] | None,
    *,
    trust: bool,
    verify: str | os.PathLike[str] | None = None,
) -> ModelRef | None:
    """Returns the registered model that MODEL names, or None for a folder or URI.

    Raises:
        UserError: the model, version, alias or workspace does not exist.
        StageError: the registry is unreachable.
    """
    parts = name_and_selector(os.fspath(model))
    if parts is None:
        return None
    ref = ModelRef(_registry(tracking_uri, workspace), *parts, trust=trust, verify_by=verifying_key(verify))
    ref.version()
    return ref


def open_model(
    model: str | os.PathLike[str],
    tracking_uri: str | None,
    workspace: str | os.PathLike[str] | None,
    *,
    trust: bool,
    digest: str | None = None,
    verify: str | os.PathLike[str] | None = None,
) -> AbstractContextManager[OpenedModel]:
    """Opens MODEL with `components.bundle.source.open_model`.

    Args:
        model: see `components.bundle.source.open_model`.
        tracking_uri: address of MLflow's server or database; None: the workspace's.
        workspace: the workspace given, if any.
        trust: accept a model without a registered digest.
        digest: expected digest of the manifest of a folder or URI.
        verify: see `verifying_key`.
    """
    if name_and_selector(os.fspath(model)):
        uri: str | None = _registry(tracking_uri, workspace)
    else:  # needs no workspace
        uri = tracking_uri and take_credentials(tracking_uri)
    return open_any(model, uri, trust=trust, digest=digest, verify_by=verifying_key(verify))


def verifying_key(verify: str | os.PathLike[str] | None, argument: str = "verify") -> Path | None:
    """Returns the file with the public key or certificate that a model's signature must verify with, after checking it.

    Raises:
        UserError: the file holds neither, or the extra `signing` is not installed.
    """
    if verify is None:
        return None
    check_verifier(Path(verify), argument)
    return Path(verify)


def _registry(tracking_uri: str | None, workspace: str | os.PathLike[str] | None) -> str:
    return registry_uri(tracking_uri, Path(workspace) if workspace is not None else None)


def load_model(
    model: str | os.PathLike[str],
    *,
    tracking_uri: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    trust: bool = False,
    digest: str | None = None,
    verify: str | os.PathLike[str] | None = None,
) -> BundleModel:
    """Loads a pipeline's evaluated model with its preprocessing: raw rows in, predictions out.

    Its files are checked against the registered digest before any of them is loaded.

    Args:
        model: `NAME@ALIAS`, `NAME@VERSION`, an MLflow URI (`models:/NAME/VERSION`, `runs:/...`), or the path of an MLflow Model
            or of a training stage's output.
        tracking_uri: MLflow's server or database; default: MLFLOW_TRACKING_URI, then the workspace's.
        workspace: workspace whose registry is used; default: the only workspace below the working directory.
        trust: accept a model without a digest: a path, another URI, a version registered without one. Loading a model can run its
            content.
        digest: expected SHA-256 of the manifest of a path or URI; trust is not needed then.
        verify: PEM file with the public key, or the certificate, that the model's signature must verify with; trust is not
            needed then.

    Returns:
        The loaded model: `predict(rows)`, `scores(rows)`, `info`.

    Raises:
        UserError: the model does not exist, was changed, is not trusted, or its signature does not verify.
        StageError: the registry is unreachable.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(open_model(model, tracking_uri, workspace, trust=trust, digest=digest, verify=verify))
        with quiet():  # hides TensorFlow's device messages
            import_torch_first()
            loaded = load_bundle(opened.folder, opened.digest)
        # Keeps the copy as long as the model: a framework may read files later.
        weakref.finalize(loaded, stack.pop_all().close)
    return loaded
