"""The MLflow runs of one pipeline run: the parent, and a nested one per stage. The same hierarchy in every runner."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from switchyard.components.errors import UserError
from switchyard.components.text.redaction import mask, take_credentials
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.context import RunContext
from switchyard.components.tracking.journal import HEADER, PARENT_KEY, Journal, is_alive, noted, process_identity, write_header
from switchyard.components.tracking.mlflow_errors import is_denial, is_refusal, refusal
from switchyard.components.tracking.model_registry import user_name
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.runners.tracking.record import run_record
from switchyard.pipelines.workspace import Workspace

_log = logging.getLogger(__name__)


def tracking_uri(config: PipelineConfig, workspace: Workspace) -> str:
    """Returns the config's server, else MLFLOW_TRACKING_URI's, else the workspace's database; see `take_credentials`."""
    return take_credentials(config.tracking.uri or RunContext.current().tracking_uri or workspace.mlflow_uri)


def left_behind(workspace: Workspace, refused: str | None) -> str:
    """Returns what a person reads when something could not be sent; `refused`: MLflow's reason, None when it was away."""
    command = f"switchyard upload --workspace {shlex.quote(str(workspace.root))}"
    if refused:
        return (
            f"warning: MLflow refused a part of the run's record, which is kept on disk ({refused}). Mend that, then: {command}"
        )
    return f"warning: MLflow could not be reached; the run's record is on disk. Send it with: {command}"


class RunTracker:
    """Makes the runs and says how they ended. Never raises when MLflow is away: the journal keeps the record."""

    def __init__(self, config: PipelineConfig, workspace: Workspace, run_key: str, trainer: str, source: Path | None) -> None:
        self._config, self._workspace = config, workspace
        self._uri = tracking_uri(config, workspace)
        self._folder = workspace.journal / run_key
        self._lock = threading.Lock()
        self._runs: dict[str, tracking.Run] = {}
        self._header: dict[str, Any] = {
            "uri": mask(self._uri),
            "experiment": config.experiment,
            "artifacts": str(workspace.mlflow_artifacts),
            "runs": {},
            "new": {},
            **process_identity(),
        }
        _close_dead_runs(workspace.journal, self._uri)
        self.experiment_id: str | None = None
        record = run_record(config, trainer, source)
        self._parent = self._start(PARENT_KEY, record.name, record.tags)
        self._parent.params(record.params)
        for name, text in record.texts.items():
            self._parent.text(text, name)

    @property
    def run_id(self) -> str | None:
        """The parent run's id; None when MLflow was away."""
        return self._parent.run_id

    @property
    def away(self) -> bool:
        """Something is still to be sent."""
        return any(self._folder.glob("*.jsonl"))

    @property
    def refused(self) -> str | None:
        """Why MLflow, which is there, did not take a part of the record, in this process or a stage's."""
        return noted(self._folder)

    @property
    def lost(self) -> str | None:
        """What a person is to know of what is nowhere."""
        return next((r.lost for r in (self._parent, *self._runs.values()) if r.lost), None)

    def stage_started(self, stage: str) -> RunContext:
        """Makes the stage's run (a second try takes that of the first); returns where its process stands."""
        tags = {"switchyard.stage": stage, "switchyard.pipeline": self._config.name, "mlflow.user": user_name()}
        if self.run_id:
            tags["mlflow.parentRunId"] = self.run_id
        with self._lock:
            if stage not in self._runs:
                self._runs[stage] = self._start(stage, stage, tags)
        return RunContext(
            tracking_uri=self._uri,
            experiment_id=self.experiment_id or "",
            run_id=self._runs[stage].run_id or "",
            parent_run_id=self.run_id or "",
            stage=stage,
            journal=str(self._folder),
            state=str(self._workspace.state),
        )

    def stage_run_id(self, stage: str) -> str | None:
        """The MLflow run of a stage."""
        return self._runs[stage].run_id

    def stage_ended(self, stage: str, status: str, seconds: float, *, producer_run_id: str | None, error: str | None) -> None:
        """Ends the stage's run: `ran`, `cached` (with the run that did the work), `failed` or `cancelled`."""
        run = self._runs[stage]
        if status in ("failed", "cancelled") and run.run_id and self.experiment_id:
            tracking.end_nested(self._uri, self.experiment_id, run.run_id)
        run.metrics({"seconds": seconds})
        tags = {"switchyard.status": status}
        if error:
            tags["switchyard.error"] = error
        if status == "cached":
            link = f"#/experiments/{self.experiment_id}/runs/{producer_run_id}"
            tags["switchyard.cached_from_run"] = producer_run_id or ""
            tags["mlflow.note.content"] = f"Cached: the work was done in run [{producer_run_id}]({link})."
        run.tags(tags)
        run.end({"failed": "FAILED", "cancelled": "KILLED"}.get(status, "FINISHED"))

    def stage_never_began(self, stage: str) -> None:
        """Takes the run of a stage away that shared a process with one that failed before it."""
        run = self._runs.pop(stage)
        for key in ("runs", "new"):
            self._header[key].pop(stage, None)
        write_header(self._folder, self._header)
        if run.run_id:
            try:
                tracking.client(self._uri).delete_run(run.run_id)
            except Exception as error:  # see _start; it is ended with its parent then
                _log.warning("MLflow at %s: %s", mask(self._uri), mask(str(error)))

    def log_file(self, path: Path, folder: str) -> None:
        """Uploads a file to the parent run, if it is there."""
        if path.exists():
            self._parent.file(str(path), folder)

    def unchanged_since(self, run_id: str, metrics: Mapping[str, float], report: Path | None) -> None:
        """Gives the parent run the last one's results, and says whose they are."""
        self._parent.metrics(metrics)
        link = f"#/experiments/{self.experiment_id}/runs/{run_id}"
        note = f"Nothing has changed since run [{run_id}]({link}): its results stand."
        self._parent.tags({"switchyard.unchanged_since": run_id, "mlflow.note.content": note})
        if report is not None:
            self.log_file(report, "report")

    def ended(self, status: str, tags: dict[str, str]) -> None:
        """Ends the parent run, FINISHED, FAILED or KILLED; what could not be sent is left for `switchyard upload`."""
        self._parent.tags(tags)
        self._parent.end(status)
        if status != "FINISHED" and not self.away and self.run_id and self.experiment_id:
            # Only here is a stage that was cut short ended.
            tracking.end_nested(self._uri, self.experiment_id, self.run_id)
        if self.away:
            self._header["pid"] = None
            with suppress(OSError):  # where the disk is full, the process that is gone says the same
                write_header(self._folder, self._header)
        else:
            shutil.rmtree(self._folder)

    def _start(self, key: str, name: str, tags: dict[str, str]) -> tracking.Run:
        run_id = None
        started = int(time.time() * 1000)
        if key == PARENT_KEY or self.run_id:
            try:
                if self.experiment_id is None:
                    self.experiment_id = tracking.ensure_experiment(
                        self._uri, self._config.experiment, self._workspace.mlflow_artifacts
                    )
                run_id = tracking.create_run(self._uri, self.experiment_id, name, tags, started)
            except UserError:
                raise
            except Exception as error:  # MLflow raises what its many stores raise
                _log.warning("MLflow at %s: %s", mask(self._uri), mask(str(error)))
                if is_refusal(error) or is_denial(error):
                    self._refused(key, refusal(self._uri, error))
        if run_id:
            self._header["runs"][key] = run_id
        else:
            self._header["new"][key] = {"name": name, "tags": tags, "started": started}
        write_header(self._folder, self._header)
        return tracking.Run(self._uri, run_id, Journal(self._folder, key))

    def _refused(self, key: str, why: str) -> None:
        if key == PARENT_KEY:
            # Nothing has run yet: better now than a model that is trained and cannot be registered.
            raise UserError(f"tracking.uri: {why}")
        Journal(self._folder, key).note(why)


def _close_dead_runs(journals: Path, uri: str) -> None:
    """Ends the MLflow runs of pipeline runs that were killed: they could not do it themselves."""
    for header_file in journals.glob(f"*/{HEADER}"):
        try:
            header = json.loads(header_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # that run has just ended; or damaged, which is for upload to say
            continue
        if is_alive(header) or header["uri"] != mask(uri) or any(header_file.parent.glob("*.jsonl")):
            continue
        for run_id in header["runs"].values():
            tracking.end_if_running(uri, run_id)
        shutil.rmtree(header_file.parent, ignore_errors=True)
