"""Resolves a model reference: `NAME@champion`, `NAME@3`, a folder, or a URI that MLflow can download.

A registered version is verified against its registered digest. The origin of a folder or URI is unknown: it needs a digest to
verify against, a key that verifies its signature, or explicit trust.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from switchyard.components.bundle.model import bundle_info, bundle_path
from switchyard.components.errors import StageError, UserError, first_line
from switchyard.components.process.temporary import temporary_folder
from switchyard.components.text.redaction import mask
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.manifest import verify
from switchyard.components.tracking.mlflow_errors import is_denial, refusal
from switchyard.components.tracking.model_registry import alias_version, versions
from switchyard.components.tracking.references import name_and_selector
from switchyard.components.tracking.version_download import download_version, registered_digest, verified_digest

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True)
class OpenedModel:
    """A model's local files, verified against a digest or trusted.

    Attributes:
        folder: folder of the MLflow Model.
        name: name of the registered model; for a folder its name, `model` for the output of a training stage.
        version: version in the registry; for a folder its name.
        digest: digest that the files were verified against; None if they are trusted.
        ref: the model's reference in a registry; None for a folder or URI.
    """

    folder: Path
    name: str
    version: str
    digest: str | None
    ref: ModelRef | None = None


@dataclass(frozen=True)
class ModelRef:
    """A reference to a model in a registry.

    Attributes:
        uri: URI of MLflow's server or database.
        name: name of the registered model.
        selector: number of a version, or an alias, which can move.
        trust: whether to accept versions that were registered without a digest.
        verify_by: file with the public key or certificate that a version's signature must verify with; None: no signature is
            required.
    """

    uri: str
    name: str
    selector: str
    trust: bool = False
    verify_by: Path | None = None

    @property
    def tracks_alias(self) -> bool:
        """Whether the selector is an alias, whose version can change."""
        return not self.selector.isdigit()

    def version(self) -> str:
        """Returns the currently selected version.

        Raises:
            UserError: the model, version or alias does not exist, or the registry denies access.
            StageError: the registry is unreachable.
        """
        from mlflow.exceptions import MlflowException

        try:
            known = versions(tracking.client(self.uri), self.name)
        except MlflowException as error:
            if is_denial(error):
                raise UserError(refusal(self.uri, error)) from error
            place = mask(self.uri)
            raise StageError(f"the registry {place} is unreachable: {first_line(error)}") from error
        for each in known:
            if self.selector == each.version or self.selector in each.aliases:
                return each.version
        listed = ", ".join(f"{v.version}{' (' + ', '.join(v.aliases) + ')' if v.aliases else ''}" for v in known)
        raise UserError(f"{self.name} has no version or alias {self.selector!r}. Versions: {listed or 'none'}.")

    def alias(self, name: str) -> str | None:
        """Returns the version of an alias; None if the alias does not exist."""
        return alias_version(tracking.client(self.uri), self.name, name)

    def digest(self, version: str) -> str | None:
        """Returns the registered digest of a version; None if it was registered without one."""
        return registered_digest(tracking.client(self.uri), self.name, version)

    @contextmanager
    def open(self, version: str | None = None) -> Iterator[OpenedModel]:
        """Downloads and verifies a version, by default the selected one; removes the copy when the context exits.

        Raises:
            UserError: the version does not exist, or its files do not match the registered digest or the signature.
            StageError: the registry is unreachable.
        """
        wanted = version or self.version()
        with _new_folder() as folder:
            client = tracking.client(self.uri)
            digest = download_version(client, self.uri, self.name, wanted, folder, trust=self.trust, verify_by=self.verify_by)
            yield OpenedModel(folder, self.name, wanted, digest, self)


@contextmanager
def open_model(
    ref: str | os.PathLike[str],
    tracking_uri: str | None = None,
    *,
    trust: bool = False,
    digest: str | None = None,
    verify_by: Path | None = None,
) -> Iterator[OpenedModel]:
    """Resolves a model reference, downloads the model if needed and verifies it; removes the download when the context exits.

    Args:
        ref: `NAME@ALIAS`, `NAME@VERSION`, an MLflow URI (`models:/`, `runs:/`), a URI that MLflow can download, or a path of an
            MLflow Model or of a training stage's output.
        tracking_uri: URI of MLflow's server or database; required for a registered version.
        trust: whether to accept a model without a digest. Loading a model can run its code.
        digest: required digest of the manifest of a folder or URI, which then needs no trust.
        verify_by: file with the public key or certificate that the model's signature must verify with; a folder or URI then needs
            no trust either.

    Raises:
        UserError: the model does not exist, is no bundle of Switchyard's, was changed, or is not trusted.
        StageError: the registry is unreachable.
    """
    text = os.fspath(ref)
    if parts := name_and_selector(text):
        if digest is not None:
            raise UserError("digest: applies to a folder or URI; a registered version has a digest of its own. Remove it.")
        if tracking_uri is None:
            raise UserError(f"model: {text!r} is a registered version; give the registry's address too (tracking_uri).")
        with ModelRef(tracking_uri, *parts, trust=trust, verify_by=verify_by).open() as opened:
            yield opened
        return
    is_uri = _URI.match(text) is not None
    if not is_uri and not Path(text).is_dir():
        raise UserError(
            f"model: {text!r} is neither a folder nor NAME@ALIAS or NAME@VERSION; give one, for example breast_cancer@champion."
        )
    if not trust and digest is None and verify_by is None:
        raise UserError(
            f"model: {text!r} is not a registered version, so its files cannot be verified, and loading a model can run "
            "code in it. Give NAME@ALIAS or NAME@VERSION; or, if you trust everyone who can write there, add --trust "
            "(trust=True); or, if it is signed, --verify KEY."
        )
    if is_uri:
        with _new_folder() as folder:
            _download(text, tracking_uri, folder)
            yield _signed(_verified(folder, text, digest), verify_by)
    elif digest is None and verify_by is None:
        yield _verified(Path(text), text, None)
    else:
        with _new_folder() as folder:
            yield _signed(_private_copy(_verified(Path(text), text, digest), folder), verify_by)


def _signed(found: OpenedModel, key: Path | None) -> OpenedModel:
    """Returns a model whose signature was checked, if a key is given."""
    return dataclasses.replace(found, digest=verified_digest(found.folder, key)) if key else found


def _private_copy(found: OpenedModel, target: Path) -> OpenedModel:
    """Returns a verified private copy of a model: others could change the original's files between check and load."""
    try:
        shutil.copytree(found.folder, target, symlinks=True)
    except OSError as error:
        raise UserError(f"model: {found.folder} cannot be copied to {target.parent}: {first_line(error)}") from None
    verify(target, found.digest)
    return dataclasses.replace(found, folder=target)


def _verified(folder: Path, text: str, digest: str | None) -> OpenedModel:
    inner = bundle_path(folder)
    # A training stage's output holds the model one level down.
    folder = inner if inner.is_dir() else folder
    try:
        verify(folder, digest)
        bundle_info(folder)
    except (OSError, ValueError, TypeError):
        raise UserError(f"model: {text} is not a Switchyard model bundle (an MLflow Model with bundle.json).") from None
    if folder.name == inner.name:
        return OpenedModel(folder, "model", folder.resolve().parent.name, digest)
    name = folder.resolve().name
    return OpenedModel(folder, name, name, digest)


def _download(uri: str, tracking_uri: str | None, target: Path) -> None:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        try:
            shutil.move(download_artifacts(artifact_uri=uri, dst_path=work, tracking_uri=tracking_uri), target)
        except (MlflowException, OSError) as error:
            raise UserError(f"model: {uri} cannot be downloaded: {first_line(error)}") from None


@contextmanager
def _new_folder() -> Iterator[Path]:
    """Yields the path of a folder to create, in a temporary folder."""
    with temporary_folder() as parent:
        yield parent / "model"
