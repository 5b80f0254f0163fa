"""The workspace: the folder for everything that a local run writes."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from switchyard.components.errors import UserError
from switchyard.components.process.full_disk import note_written
from switchyard.components.process.temporary import check_temporary
from switchyard.components.progress import no_progress_bars
from switchyard.components.text.escaping import sqlite_uri
from switchyard.components.text.redaction import take_credentials
from switchyard.components.tracking.context import RunContext
from switchyard.components.tracking.workspace_location import settle_in

NAME = ".switchyard"


@dataclass(frozen=True)
class Workspace:
    """Paths inside a workspace."""

    root: Path

    @property
    def metadata(self) -> Path:
        """ML Metadata's database: executions, artifacts, the stage cache."""
        return self.root / "metadata.sqlite"

    @property
    def metadata_lock(self) -> Path:
        """Lock file, held while a process uses ML Metadata."""
        return self.root / "metadata.lock"

    @property
    def artifacts(self) -> Path:
        """The outputs of stages."""
        return self.root / "artifacts"

    @property
    def code(self) -> Path:
        """Snapshots of the user's code."""
        return self.root / "code"

    @property
    def state(self) -> Path:
        """Checkpoints of unfinished stages."""
        return self.root / "state"

    @property
    def last_run(self) -> Path:
        """Inputs and results of the last run, see `last_run`."""
        return self.state / "last_run.json"

    @property
    def logs(self) -> Path:
        """Log files, one folder per run and one file per stage."""
        return self.root / "logs"

    @property
    def mlflow_database(self) -> Path:
        """MLflow's database, used without a tracking server."""
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's files, used without a tracking server."""
        return self.root / "mlflow"

    @property
    def journal(self) -> Path:
        """Records buffered while MLflow was unreachable."""
        return self.root / "tracking"

    @property
    def upload_lock(self) -> Path:
        """Lock file, held while a process sends the buffered records."""
        return self.root / "upload.lock"

    @property
    def mlflow_uri(self) -> str:
        """URI of the local tracking database."""
        return sqlite_uri(self.mlflow_database)

    def neutral(self, text: str) -> str:
        """Returns a text with the workspace's path, plain or in JSON, replaced by a placeholder.

        Keys made from such a text (a cache's key, a digest) stay valid when the workspace is moved.
        """
        for path in (str(self.root), json.dumps(str(self.root))[1:-1]):
            text = text.replace(f"{path}/", "<workspace>/")
        return text

    def contain_libraries(self) -> None:
        """Redirects libraries' files from the home folder to the workspace; disables telemetry. Call it before importing them."""
        os.environ.setdefault("MPLCONFIGDIR", str(self.root / "caches" / "matplotlib"))
        os.environ.setdefault("KERAS_HOME", str(self.root / "caches" / "keras"))
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        no_progress_bars()
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

    def create(self) -> list[Path]:
        """Creates the folder, or adapts an existing one to its location; returns the folders created, including parents.

        Raises:
            UserError: the folder or the one for temporary files is read-only, or it was moved while a run wrote to it.
        """
        check_temporary()
        made = [p for p in (self.root, *self.root.parents) if not p.exists()]
        try:
            for folder in (self.root, self.artifacts, self.logs, self.state):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root) as probe:
                probe.write(b"0" * 4096)
            self._check_writable()
            ignore = self.root / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
        except OSError as error:
            inside = str(error.filename).startswith(f"{self.root}{os.sep}") and os.path.lexists(error.filename)
            part = f" ({error.filename})" if inside else ""
            why = os.strerror(error.errno or 0)
            raise UserError(f"workspace {self.root}: cannot write to it{part}: {why}. Choose another with --workspace.") from None
        note_written(self.root)
        _settle(self.root)
        return made

    def _check_writable(self) -> None:
        """Raises OSError for a part of the workspace that belongs to another user, before a run fails in the middle."""
        folders = (self.root, self.artifacts, self.logs, self.state, self.code, self.journal, self.mlflow_artifacts)
        files = (self.metadata, self.metadata_lock, self.mlflow_database, self.upload_lock, self.last_run)
        for path in (*folders, *files):
            if path.exists() and not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        user = os.geteuid()
        for folder in (self.root, self.state):
            # In a folder with the sticky bit files of other users cannot be replaced, which is how a run writes its records.
            sticky = folder.stat().st_mode & stat.S_ISVTX and user not in (0, folder.stat().st_uid)
            if sticky and (foreign := next((p for p in folder.iterdir() if p.lstat().st_uid != user), None)):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(foreign))

    def forget(self, log: Path, made: Sequence[Path]) -> None:
        """Removes the log and the new folders of a command that was refused before it began."""
        if log.is_dir():
            shutil.rmtree(log, ignore_errors=True)
        else:
            log.unlink(missing_ok=True)
        if not made:
            return
        with suppress(OSError):  # another run uses this workspace meanwhile
            self.logs.rmdir()
            shutil.rmtree(self.root, ignore_errors=True)
            for folder in made[1:]:
                folder.rmdir()


def beside(yaml: Path | None) -> Path:
    """Returns `.switchyard` beside the YAML, or in the current folder, whomever it belongs to."""
    return (yaml.resolve().parent if yaml else Path.cwd()) / NAME


def default_workspace(yaml: Path | None) -> Path:
    """Returns `.switchyard` beside the YAML, or in the current folder.

    Raises:
        UserError: it belongs to another user, see `_own`.
    """
    return _own(beside(yaml), yaml)


def find_workspace(workspace: Path | None, pipeline: Path | None) -> Path:
    """Returns the workspace: the one given, the one beside the YAML given, else the only one below the current folder.

    Raises:
        UserError: there is none or several, or it was moved while a run wrote to it.
    """
    root = _find(workspace, pipeline).resolve()
    note_written(root)
    _settle(root)
    return root


def registry_uri(uri: str | None, workspace: Path | None) -> str:
    """Returns the registry's URI: the one given, else MLFLOW_TRACKING_URI, else the database of the workspace given or found."""
    if uri:
        return take_credentials(uri)
    if not workspace and (server := RunContext.current().tracking_uri):
        return take_credentials(server)
    place = Workspace(find_workspace(workspace, None))
    place.contain_libraries()
    return place.mlflow_uri


def _own(root: Path, yaml: Path | None) -> Path:
    """Returns a workspace that was not named but found.

    Raises:
        UserError: it belongs to neither this user, the system, nor the owner of the YAML that was named. Models and code in it
            are run, and in a folder like `/tmp` anyone can create it.
    """
    trusted = {os.geteuid(), 0, *([yaml.stat().st_uid] if yaml and yaml.exists() else [])}
    for path in (root, root.resolve()):  # a link, and where it leads
        if os.path.lexists(path) and (owner := path.lstat().st_uid) not in trusted:
            raise UserError(
                f"workspace {path}: it belongs to another user (id {owner}), and a workspace's models and code are run. If you "
                f"trust that user, name it: --workspace {shlex.quote(str(root))}"
            )
    return root


def _settle(root: Path) -> None:
    if moved := settle_in(root):
        click.echo(moved, err=True)


def _find(workspace: Path | None, pipeline: Path | None) -> Path:
    if workspace or pipeline:
        root = workspace or default_workspace(pipeline)
        if not root.is_dir():
            raise UserError(f"{root}: not a workspace. Run a pipeline first, or give another with --workspace.")
        return root
    here = Path.cwd() / NAME
    if here.is_dir():
        return _own(here, None)
    found = sorted(p for depth in ("*", "*/*", "*/*/*", "*/*/*/*") for p in Path.cwd().glob(f"{depth}/{NAME}"))
    found = [p for p in found if ".venv" not in p.parts]
    if len(found) == 1:
        return _own(found[0], None)
    if not found:
        raise UserError("no workspace found below this folder. Run a pipeline first, or give one with --workspace.")
    listed = "\n".join(f"  {p}" for p in found)
    raise UserError(f"several workspaces below this folder; choose one with --workspace:\n{listed}")
