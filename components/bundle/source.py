"""Where a model comes from: `NAME@champion`, `NAME@3`, a folder, or a URI that MLflow can download.

A version of the registry is compared with the digest that was registered. What else there is shows by nothing whose it is.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from switchyard.components.bundle.model import bundle_info
from switchyard.components.errors import StageError, UserError, first_line
from switchyard.components.text.redaction import mask
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.manifest import verify
from switchyard.components.tracking.mlflow_errors import is_denial, refusal
from switchyard.components.tracking.model_registry import alias_version, versions
from switchyard.components.tracking.version_download import download_version, registered_digest

_REGISTERED = re.compile(r"(models:/)?(?P<name>[^@/:]+)@(?P<wanted>[A-Za-z0-9_.-]+)|models:/(?P<model>[^@/:]+)/(?P<version>\d+)")


@dataclass(frozen=True)
class Registered:
    """A model in a registry.

    Attributes:
        uri: of MLflow's server or database.
        name: of the registered model.
        wanted: a version's number, or an alias that may move.
        trust: take versions that were registered without a digest.
    """

    uri: str
    name: str
    wanted: str
    trust: bool = False

    @property
    def follows(self) -> bool:
        """Whether what is meant can change."""
        return not self.wanted.isdigit()

    def version(self) -> str:
        """Returns the version that is meant now.

        Raises:
            UserError: there is no such model, version or alias.
            StageError: the registry cannot be reached.
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
            if self.wanted == each.version or self.wanted in each.aliases:
                return each.version
        listed = ", ".join(f"{v.version}{' (' + ', '.join(v.aliases) + ')' if v.aliases else ''}" for v in known)
        raise UserError(f"{self.name} has no version or alias {self.wanted!r}. Versions: {listed or 'none'}.")

    def alias(self, name: str) -> str | None:
        """Returns the version that has an alias; None: no version has."""
        return alias_version(tracking.client(self.uri), self.name, name)

    def download(self, version: str) -> Path:
        """Returns a new folder with a version's MLflow Model; the caller removes it.

        Raises:
            UserError: its files are not those that were registered.
        """

        def fetch(target: Path) -> None:
            download_version(tracking.client(self.uri), self.uri, self.name, version, target, trust=self.trust)

        return _downloaded(fetch)

    def digest(self, version: str) -> str | None:
        """Returns the digest that a version was registered with; None: it has none, and is trusted."""
        return registered_digest(tracking.client(self.uri), self.name, version)


def name_and_wanted(text: str) -> tuple[str, str] | None:
    """Returns the parts of `NAME@ALIAS` or `NAME@VERSION`, also as MLflow's URIs; None when `text` is of another form."""
    found = _REGISTERED.fullmatch(text)
    return (found["name"] or found["model"], found["wanted"] or found["version"]) if found else None


def model_folder(text: str, uri: str | None = None, *, trusted: bool = False) -> tuple[Path, bool]:
    """Returns the MLflow Model at a path or URI, and whether it is a copy that the caller removes.

    Args:
        text: the path or URI.
        uri: of MLflow's server or database.
        trusted: by whoever gives the command, or by a digest that is compared.

    Raises:
        UserError: there is none, Switchyard did not make it, it was changed, or it is not trusted.
    """
    if "://" not in text and not text.startswith(("models:/", "runs:/")):
        folder, copy = Path(text), False
        if not folder.is_dir():
            raise UserError(
                f"model: {text!r} is no folder, and not NAME@ALIAS or NAME@VERSION; for example breast_cancer@champion."
            )
        _refuse_untrusted(text, trusted=trusted)
        # What a run leaves as the training stage's output holds the model one level down.
        folder = folder / "Format-Serving" if (folder / "Format-Serving").is_dir() else folder
    else:
        _refuse_untrusted(text, trusted=trusted)
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        def fetch(target: Path) -> None:
            with tempfile.TemporaryDirectory(dir=target.parent) as work:
                try:
                    shutil.move(download_artifacts(artifact_uri=text, dst_path=work, tracking_uri=uri), target)
                except (MlflowException, OSError) as error:
                    raise UserError(f"model: {text} cannot be downloaded: {first_line(error)}") from None

        folder, copy = _downloaded(fetch), True
    try:
        verify(folder)
        bundle_info(folder)
    except (OSError, ValueError, TypeError, UserError) as error:
        if copy:
            shutil.rmtree(folder.parent, ignore_errors=True)
        if isinstance(error, UserError):
            raise
        raise UserError(f"model: {text} is no model bundle of Switchyard's (an MLflow Model with bundle.json inside).") from None
    return folder, copy


def _refuse_untrusted(text: str, *, trusted: bool) -> None:
    if not trusted:
        raise UserError(
            f"model: {text!r} is no version of a registry: nothing shows that its files are those that were trained, and loading "
            "a model can run what is in it. Give NAME@ALIAS or NAME@VERSION; or add --trust if you trust whoever writes there."
        )


def _downloaded(fetch: Callable[[Path], None]) -> Path:
    parent = Path(tempfile.mkdtemp(prefix="switchyard-model-"))
    try:
        fetch(parent / "model")
    except BaseException:
        shutil.rmtree(parent, ignore_errors=True)
        raise
    return parent / "model"
