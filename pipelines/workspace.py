"""The folder that holds everything a local run writes."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from switchyard.components.errors import UserError
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
        """Held while a process talks to ML Metadata."""
        return self.root / "metadata.lock"

    @property
    def artifacts(self) -> Path:
        """What stages write."""
        return self.root / "artifacts"

    @property
    def code(self) -> Path:
        """Snapshots of the user's code."""
        return self.root / "code"

    @property
    def state(self) -> Path:
        """Checkpoints of stages that are not finished."""
        return self.root / "state"

    @property
    def last_run(self) -> Path:
        """What the last run was given and left, see `last_run`."""
        return self.state / "last_run.json"

    @property
    def logs(self) -> Path:
        """One folder per run, one file per stage."""
        return self.root / "logs"

    @property
    def mlflow_database(self) -> Path:
        """MLflow's database, when no tracking server is given."""
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's files, likewise."""
        return self.root / "mlflow"

    @property
    def journal(self) -> Path:
        """What could not be sent to MLflow yet."""
        return self.root / "tracking"

    @property
    def upload_lock(self) -> Path:
        """Held while a process sends it."""
        return self.root / "upload.lock"

    @property
    def mlflow_uri(self) -> str:
        """The local tracking database."""
        return sqlite_uri(self.mlflow_database)

    def neutral(self, text: str) -> str:
        """Returns a text with the workspace's own path in it, as it is and as JSON has it, replaced by a word.

        What is known by such a text (a cache's key, a digest) is known again when the workspace has been moved.
        """
        for path in (str(self.root), json.dumps(str(self.root))[1:-1]):
            text = text.replace(f"{path}/", "<workspace>/")
        return text

    def contain_libraries(self) -> None:
        """Points libraries that would write to the home folder, or call home, to this one. Call it before importing them."""
        os.environ.setdefault("MPLCONFIGDIR", str(self.root / "caches" / "matplotlib"))
        os.environ.setdefault("KERAS_HOME", str(self.root / "caches" / "keras"))
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        no_progress_bars()
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

    def create(self) -> list[Path]:
        """Makes the folder, or settles in the one that is there; returns it and those above it that were not there.

        Raises:
            UserError: it cannot be written to, or was moved from under a run.
        """
        made = [p for p in (self.root, *self.root.parents) if not p.exists()]
        try:
            for folder in (self.root, self.artifacts, self.logs, self.state):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root) as probe:
                probe.write(b"0" * 4096)
            ignore = self.root / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"workspace {self.root}: cannot write to it: {os.strerror(error.errno or 0)}. Choose another with --workspace."
            ) from None
        _settle(self.root)
        return made

    def forget(self, log: Path, made: Sequence[Path]) -> None:
        """Removes what a command left that was refused before it began: its log, and the folders that it made for itself."""
        if log.is_dir():
            shutil.rmtree(log, ignore_errors=True)
        else:
            log.unlink(missing_ok=True)
        if not made:
            return
        with suppress(OSError):  # another run has come to this workspace meanwhile
            self.logs.rmdir()
            shutil.rmtree(self.root, ignore_errors=True)
            for folder in made[1:]:
                folder.rmdir()


def default_workspace(yaml: Path | None) -> Path:
    """Returns `.switchyard` beside the YAML, or in the current folder."""
    return (yaml.resolve().parent if yaml else Path.cwd()) / NAME


def find_workspace(workspace: Path | None, pipeline: Path | None) -> Path:
    """Returns the workspace to look at: the one given, the one beside the YAML given, else the only one below here.

    Raises:
        UserError: there is none, or several; or it was moved from under a run.
    """
    root = _find(workspace, pipeline).resolve()
    _settle(root)
    return root


def registry_uri(uri: str | None, workspace: Path | None) -> str:
    """Returns the server given, else MLFLOW_TRACKING_URI's, else the database of the workspace given or found."""
    if uri:
        return take_credentials(uri)
    if not workspace and (server := RunContext.current().tracking_uri):
        return take_credentials(server)
    place = Workspace(find_workspace(workspace, None))
    place.contain_libraries()
    return place.mlflow_uri


def _settle(root: Path) -> None:
    if moved := settle_in(root):
        click.echo(moved, err=True)


def _find(workspace: Path | None, pipeline: Path | None) -> Path:
    if workspace or pipeline:
        root = workspace or default_workspace(pipeline)
        if not root.is_dir():
            raise UserError(f"{root}: there is no workspace. Run a pipeline first, or give another with --workspace.")
        return root
    here = Path.cwd() / NAME
    if here.is_dir():
        return here
    found = sorted(p for depth in ("*", "*/*", "*/*/*", "*/*/*/*") for p in Path.cwd().glob(f"{depth}/{NAME}"))
    found = [p for p in found if ".venv" not in p.parts]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError("there is no workspace here. Run a pipeline first, or give one with --workspace.")
    listed = "\n".join(f"  {p}" for p in found)
    raise UserError(f"there are several workspaces below this folder; choose one with --workspace:\n{listed}")
