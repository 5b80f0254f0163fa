"""Where a model comes from: `NAME@champion`, `NAME@3`, a folder, or a URI that MLflow can download.

A version of the registry is compared with the digest that was registered. Nothing shows whose the files of a folder or URI are:
they need a digest to compare with, or trust.
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
from switchyard.components.text.redaction import mask
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.manifest import verify
from switchyard.components.tracking.mlflow_errors import is_denial, refusal
from switchyard.components.tracking.model_registry import alias_version, versions
from switchyard.components.tracking.version_download import download_version, registered_digest

_REGISTERED = re.compile(
    r"(models:/)?(?P<name>[^@/:]+)@(?P<selector>[A-Za-z0-9_.-]+)|models:/(?P<model>[^@/:]+)/(?P<version>\d+)"
)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True)
class OpenedModel:
    """A model's files on this disk: compared with a digest, or trusted.

    Attributes:
        folder: the MLflow Model.
        name: of the registered model; of a folder its name.
        version: in the registry; of a folder its name.
        digest: that the files were compared with; None: they are trusted.
        ref: where in a registry it is from; None: from a folder or URI.
    """

    folder: Path
    name: str
    version: str
    digest: str | None
    ref: ModelRef | None = None


@dataclass(frozen=True)
class ModelRef:
    """A model in a registry.

    Attributes:
        uri: of MLflow's server or database.
        name: of the registered model.
        selector: a version's number, or an alias that may move.
        trust: take versions that were registered without a digest.
    """

    uri: str
    name: str
    selector: str
    trust: bool = False

    @property
    def tracks_alias(self) -> bool:
        """Whether the version can change."""
        return not self.selector.isdigit()

    def version(self) -> str:
        """Returns the version that is selected now.

        Raises:
            UserError: there is no such model, version or alias.
            StageError: the registry is unreachable.
        """
        from mlflow.exceptions import MlflowException

        try:
            known = versions(tracking.client(self.uri), self.name)
        except MlflowException as error:
            if is_denial(error):
                raise UserError(refusal(self.uri, error)) from error
            place = mask(self.uri)
            raise StageError(f"the registry {place} cannot be asked: {first_line(error)}") from error
        for each in known:
            if self.selector == each.version or self.selector in each.aliases:
                return each.version
        listed = ", ".join(f"{v.version}{' (' + ', '.join(v.aliases) + ')' if v.aliases else ''}" for v in known)
        raise UserError(f"{self.name} has no version or alias {self.selector!r}. Versions: {listed or 'none'}.")

    def alias(self, name: str) -> str | None:
        """Returns the version that has an alias; None: no version has."""
        return alias_version(tracking.client(self.uri), self.name, name)

    def digest(self, version: str) -> str | None:
        """Returns the digest that a version was registered with; None: it has none, and is trusted."""
        return registered_digest(tracking.client(self.uri), self.name, version)

    @contextmanager
    def open(self, version: str | None = None) -> Iterator[OpenedModel]:
        """Downloads a version, or the selected one, and verifies it; removes the copy at the end.

        Raises:
            UserError: there is none, or its files are not those that were registered.
            StageError: the registry is unreachable.
        """
        wanted = version or self.version()
        with _new_folder() as folder:
            client = tracking.client(self.uri)
            digest = download_version(client, self.uri, self.name, wanted, folder, trust=self.trust)
            yield OpenedModel(folder, self.name, wanted, digest, self)


def name_and_selector(text: str) -> tuple[str, str] | None:
    """Returns the parts of `NAME@ALIAS` or `NAME@VERSION`, also as MLflow's URIs; None when `text` is of another form."""
    found = _REGISTERED.fullmatch(text)
    return (found["name"] or found["model"], found["selector"] or found["version"]) if found else None


@contextmanager
def open_model(
    ref: str | os.PathLike[str], tracking_uri: str | None = None, *, trust: bool = False, digest: str | None = None
) -> Iterator[OpenedModel]:
    """Resolves a reference to a model, downloads it if needed, verifies it; removes what it downloaded at the end.

    Args:
        ref: `NAME@ALIAS`, `NAME@VERSION`, an MLflow URI (`models:/`, `runs:/`), a URI that MLflow can download, or a path: of an
            MLflow Model, or of a training stage's output.
        tracking_uri: of MLflow's server or database; needed for a version of the registry.
        trust: take a model that no digest vouches for. Loading a model can run what is in it.
        digest: that the manifest of a folder or URI must have; then it needs no trust.

    Raises:
        UserError: there is none, Switchyard did not make it, it was changed, or it is not trusted.
        StageError: the registry is unreachable.
    """
    text = os.fspath(ref)
    if parts := name_and_selector(text):
        if digest is not None:
            raise UserError("digest: belongs to a folder or URI; a version of the registry has its own.")
        if tracking_uri is None:
            raise UserError(f"model: {text!r} is a version of a registry; give the address of the registry, too (tracking_uri).")
        with ModelRef(tracking_uri, *parts, trust=trust).open() as opened:
            yield opened
        return
    is_uri = _URI.match(text) is not None
    if not is_uri and not Path(text).is_dir():
        raise UserError(f"model: {text!r} is no folder, and not NAME@ALIAS or NAME@VERSION; for example breast_cancer@champion.")
    if not trust and digest is None:
        raise UserError(
            f"model: {text!r} is no version of a registry: nothing shows that its files are those that were trained, and loading "
            "a model can run what is in it. Give NAME@ALIAS or NAME@VERSION; or, if you trust whoever writes there, add --trust "
            "(trust=True)."
        )
    if is_uri:
        with _new_folder() as folder:
            _download(text, tracking_uri, folder)
            yield _verified(folder, text, digest)
    elif digest is None:
        yield _verified(Path(text), text, None)
    else:
        with _new_folder() as folder:
            yield _private_copy(_verified(Path(text), text, digest), folder, digest)


def _private_copy(found: OpenedModel, target: Path, digest: str) -> OpenedModel:
    """Copies a model that others may be able to write to: between the check of its files and their loading they could change."""
    try:
        shutil.copytree(found.folder, target, symlinks=True)
    except OSError as error:
        raise UserError(f"model: {found.folder} cannot be copied to {target.parent}: {first_line(error)}") from None
    verify(target, digest)
    return dataclasses.replace(found, folder=target)


def _verified(folder: Path, text: str, digest: str | None) -> OpenedModel:
    inner = bundle_path(folder)
    # What a run leaves as the training stage's output holds the model one level down.
    folder = inner if inner.is_dir() else folder
    try:
        verify(folder, digest)
        bundle_info(folder)
    except (OSError, ValueError, TypeError):
        raise UserError(f"model: {text} is no model bundle of Switchyard's (an MLflow Model with bundle.json inside).") from None
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
    """Yields the path of a folder that is not there yet, in one that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="switchyard-model-", ignore_cleanup_errors=True) as parent:
        yield Path(parent) / "model"
