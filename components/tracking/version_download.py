"""Downloads a registered version and checks it against the registered digest before any file is opened."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from switchyard.components.errors import UserError
from switchyard.components.signing.signatures import verify_signature
from switchyard.components.tracking.manifest import check_regular, own_digest, verify
from switchyard.components.tracking.model_registry import DIGEST


def registered_digest(client: Any, name: str, version: str) -> str | None:
    """Returns the registered digest of a version's manifest, or None without one."""
    found: str | None = client.get_model_version(name, version).tags.get(DIGEST)
    return found


def local_folder(source: str) -> Path | None:
    """Returns the folder that a version is copied from, if it is a path of this machine."""
    address = urlsplit(source)
    return Path(unquote(address.path)) if address.scheme in ("", "file") else None


def check_source(source: str) -> None:
    """Raises UserError for a link or another special file in the folder that a version is copied from, if it is local."""
    if folder := local_folder(source):
        check_regular(folder)


def download_version(
    client: Any, uri: str, name: str, version: str, target: Path, *, trust: bool = False, verify_by: Path | None = None
) -> str | None:
    """Copies a version's MLflow Model to `target`, a new folder; returns the digest that it was verified by.

    Args:
        client: an MlflowClient.
        uri: address of MLflow's server or database.
        name: name of the registered model.
        version: version of the registered model.
        target: folder to create.
        trust: accept a version registered without a digest; None is returned then.
        verify_by: file with the public key or certificate that its signature must verify with, which shows the origin of a
            version without a digest, too.

    Raises:
        UserError: the files do not match the registered or the signed ones, or there is no digest. No file was opened.
    """
    from mlflow.artifacts import download_artifacts

    digest = registered_digest(client, name, version)
    if digest is None and not trust and verify_by is None:
        raise UserError(
            f"{name} version {version} was registered without a digest, so its files cannot be verified. Train and register "
            "it again; serve, predict, drift and deploy accept it with --trust."
        )
    source = client.get_model_version_download_uri(name, version)
    check_source(source)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        # The downloaded folder is named like the last part of the source.
        shutil.move(download_artifacts(artifact_uri=source, dst_path=work, tracking_uri=uri), target)
    try:
        if digest is not None:
            verify(target, digest)
        return verified_digest(target, verify_by, f"{name} version {version}") if verify_by else digest
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def verified_digest(folder: Path, key: Path, what: str = "model") -> str | None:
    """Returns the digest of a folder's manifest after checking all files, by the manifest and by the signature with `key`.

    Args:
        folder: folder of the MLflow Model.
        key: file with the public key or certificate.
        what: the model's name in errors.

    Raises:
        UserError: the files are not as they were signed.
    """
    verify(folder)
    verify_signature(folder, key, what)
    return own_digest(folder)
