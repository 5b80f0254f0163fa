"""Local files in the artifact store of a pipeline's MLflow experiment, which this machine writes to and every task reads.

The cluster stores every byte of a task's command five times, but the name of an uploaded file only. A file is named by its
content: equal files give equal commands, hence cache hits, and a task checks what it reads. Where the files are is in the task's
environment, which is not part of the cache key: a run of another experiment takes its stages from the cache too.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from switchyard.components.errors import StageError, first_line
from switchyard.components.process import variables
from switchyard.components.text.redaction import holds_credentials, mask
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.context import RunContext
from switchyard.components.tracking.mlflow_errors import is_denial, is_refusal

_FOLDER = "switchyard-files"
# Begins the reference of an uploaded file.
STORED = "stored:"
_REFERENCE = re.compile(rf"{STORED}([0-9a-f]{{64}})")
# Seconds between attempts to read a file: a task outlasts a short outage of MLflow.
_PAUSES = (2, 5, 15, 30)
_log = logging.getLogger(__name__)


class FileStore:
    """The artifact store of an experiment.

    Args:
        uri: the tracking server.
        experiment: name of the experiment, created if missing.
        say: prints a message: what was uploaded where, or a warning.

    Attributes:
        location: where the uploaded files are; empty if there are none.
    """

    def __init__(self, uri: str, experiment: str, say: Callable[[str], None]) -> None:
        self._uri, self._experiment, self._say = uri, experiment, say
        self.location = ""

    def upload(self, files: Iterable[Path]) -> dict[Path, str]:
        """Uploads files; returns file -> reference for `fetch`; empty, after a warning, if MLflow does not take them."""
        files = list(files)
        if not files:
            return {}
        try:
            location = self._location()
            stored = {file: self._upload(file, location) for file in files}
        except Exception as error:  # MLflow's stores raise many types of errors
            self._say(
                f"warning: MLflow at {mask(self._uri)} does not store the pipeline's files ({first_line(error)}); "
                "they are embedded in the pipeline instead"
            )
            return {}
        size = sum(f.stat().st_size for f in files)
        self._say(f"{len(files)} file(s) of the pipeline, {size / 1000:,.0f} kB, uploaded to {location}")
        self.location = location
        return stored

    def _location(self) -> str:
        experiment = tracking.ensure_experiment(self._uri, self._experiment, None)
        location = str(tracking.client(self._uri).get_experiment(experiment).artifact_location)
        address = urlsplit(location)
        if address.scheme in ("", "file"):
            raise StageError(f"the experiment's files are in a folder of that server, {location}")
        if address.username is not None or holds_credentials(location):
            raise StageError("the address of the experiment's files contains a password")
        return f"{location.rstrip('/')}/{_FOLDER}"

    def _upload(self, file: Path, location: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            # A copy, which does not change between the digest and the upload.
            copy = Path(shutil.copyfile(file, Path(folder) / "copy"))
            with copy.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            _repository(location, self._uri).log_artifact(str(copy.rename(copy.with_name(digest))))
        return f"{STORED}{digest}"


def is_stored(text: str) -> bool:
    """Returns whether a text is the reference of an uploaded file."""
    return bool(_REFERENCE.fullmatch(text))


def fetch(reference: str) -> bytes:
    """Returns the content of an uploaded file, read from the place and by the tracking server of this process's context.

    Raises:
        StageError: the file cannot be read, or its content was changed.
    """
    found = _REFERENCE.fullmatch(reference)
    if not found:
        raise ValueError(f"{reference[:80]!r} is not an uploaded file")
    digest, location = found[1], RunContext.current().files
    if not location:
        raise StageError(
            f"{digest}: this file was uploaded with the pipeline, and {variables.FILES}, which says where, is not set; submit "
            "the pipeline again with switchyard submit"
        )
    for pause in (*_PAUSES, None):
        try:
            content = _read(location, digest)
        except Exception as error:  # see FileStore.upload
            if pause is None or is_denial(error) or is_refusal(error):
                raise StageError(
                    f"{location}/{digest}: cannot read this file, which was uploaded with the pipeline ({first_line(error)}); "
                    f"check that pods reach MLflow at {mask(RunContext.current().tracking_uri)} "
                    "(kubeflow.defaults.environment.MLFLOW_TRACKING_URI) and that its experiment exists, then retry the run, or "
                    "submit the pipeline again"
                ) from error
            _log.warning("MLflow: %s; trying again in %d s", first_line(error), pause)
        else:
            if hashlib.sha256(content).hexdigest() == digest:
                return content
            # Another `submit` may be uploading the same file.
            _log.warning("MLflow: %s/%s has another content", location, digest)
        time.sleep(pause or 0)
    raise StageError(f"{location}/{digest}: the file was changed after the pipeline was submitted; submit the pipeline again")


def _read(location: str, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        repository = _repository(location, RunContext.current().tracking_uri)
        return Path(repository.download_artifacts(name, folder)).read_bytes()


def _repository(location: str, uri: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if uri:
        tracking.client(uri)  # sets MLflow's timeouts
    return get_artifact_repository(location, tracking_uri=uri or None)
