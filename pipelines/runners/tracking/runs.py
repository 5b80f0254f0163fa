"""The MLflow runs of one pipeline run: a parent and one nested run per stage, the same in every runner."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from switchyard.components.errors import UserError
from switchyard.components.text.redaction import mask, take_credentials
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.context import RunContext
from switchyard.components.tracking.journal import HEADER, PARENT_KEY, Journal, is_alive, noted, process_identity, write_header
from switchyard.components.tracking.mlflow_errors import is_denial, is_refusal, refusal
from switchyard.components.tracking.model_registry import user_name
from switchyard.components.tracking.operations import of_cached
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.runners.tracking.record import RunRecord, run_record
from switchyard.pipelines.runners.tracking.run_name import run_name
from switchyard.pipelines.workspace import Workspace

_log = logging.getLogger(__name__)
# End of the name of a journal with the stages of an unchanged run.
OF_STAGES = "-stages"


def tracking_uri(config: PipelineConfig, workspace: Workspace) -> str:
    """Returns the config's tracking URI, else MLFLOW_TRACKING_URI, else the workspace's database; see `take_credentials`."""
    return take_credentials(config.tracking.uri or RunContext.current().tracking_uri or workspace.mlflow_uri)


def left_behind(workspace: Workspace, refused: str | None) -> str:
    """Returns the warning about unsent records; `refused` is MLflow's reason, None when it was unreachable."""
    command = f"switchyard upload --workspace {shlex.quote(str(workspace.root))}"
    if refused:
        return (
            f"warning: MLflow refused a part of the run's record, which is kept on disk ({refused}). Fix the reason, then: "
            f"{command}"
        )
    return f"warning: MLflow was unreachable; the run's record is on disk. Upload it with: {command}"


class RunTracker:
    """The MLflow runs of a pipeline run. With MLflow unreachable nothing is raised: the journal buffers the records."""

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
        self._parent = self._start(PARENT_KEY, record.name, record.tags, record)
        self._parent.params(record.params)
        self.log_texts(record.texts)

    @property
    def run_id(self) -> str | None:
        """Id of the parent run; None when MLflow was unreachable."""
        return self._parent.run_id

    @property
    def offline(self) -> bool:
        """Whether records still wait to be sent."""
        return any(self._folder.glob("*.jsonl"))

    @property
    def refused(self) -> str | None:
        """Why a reachable MLflow rejected a part of the record, in this process or a stage's; None when it did not."""
        return noted(self._folder)

    @property
    def lost(self) -> str | None:
        """Warning about records that could be neither sent nor buffered; None when there are none."""
        return next((r.lost for r in (self._parent, *self._runs.values()) if r.lost), None)

    def stage_started(self, stage: str) -> RunContext:
        """Creates the stage's run (a retry reuses it) and returns the context for the stage's process."""
        with self._lock:
            if stage not in self._runs:
                self._runs[stage] = self._start(stage, stage, self._stage_tags(stage))
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
        """Returns the id of a stage's MLflow run; None when MLflow was unreachable."""
        return self._runs[stage].run_id

    def stage_ended(self, stage: str, status: str, seconds: float, *, producer_run_id: str | None, error: str | None) -> None:
        """Ends the stage's run as `ran`, `cached` (with the id of the run that produced the outputs), `failed` or `cancelled`."""
        run = self._runs[stage]
        if status in ("failed", "cancelled") and run.run_id and self.experiment_id:
            tracking.end_nested(self._uri, self.experiment_id, run.run_id)
        tags = {"switchyard.status": status}
        if error:
            tags["switchyard.error"] = error
        if status == "cached":
            tags |= self._cached_tags(producer_run_id or "")
        run.log(metrics={"seconds": seconds}, tags=tags)
        run.end({"failed": "FAILED", "cancelled": "KILLED"}.get(status, "FINISHED"))

    def stages_cached(self, producers: Mapping[str, str], *, later: bool) -> bool:
        """Records stages that are not looked at, as `stage_started` and `stage_ended` would in more requests.

        Args:
            producers: stage -> id of the run that produced its outputs.
            later: keep the records in a journal, which `upload.send_stages` sends when the run has ended.

        Returns:
            Whether they are kept for later: MLflow has the parent run, and its address in the journal is complete.
        """
        later = later and self.run_id is not None and not self.offline and mask(self._uri) == self._uri
        header = {**self._header, "runs": {PARENT_KEY: self.run_id}, "new": {}, "pid": None}
        folder = self._folder.with_name(self._folder.name + OF_STAGES)
        for stage, producer in producers.items():
            tags = {**self._stage_tags(stage), "switchyard.status": "cached", **self._cached_tags(producer)}
            if later:
                now = int(time.time() * 1000)
                header["new"][stage] = {"name": stage, "tags": tags, "started": now}
                Journal(folder, stage).write(of_cached(now))
            else:
                self._runs[stage] = run = self._start(stage, stage, tags)
                run.metrics({"seconds": 0.0})
                run.end("FINISHED")
        if later:
            write_header(folder, header)
        return later

    def _stage_tags(self, stage: str) -> dict[str, str]:
        tags = {"switchyard.stage": stage, "switchyard.pipeline": self._config.name, "mlflow.user": user_name()}
        return {**tags, "mlflow.parentRunId": self.run_id} if self.run_id else tags

    def _cached_tags(self, producer_run_id: str) -> dict[str, str]:
        link = f"#/experiments/{self.experiment_id}/runs/{producer_run_id}"
        note = f"Cached: the work was done in run [{producer_run_id}]({link})."
        return {"switchyard.cached_from_run": producer_run_id, "mlflow.note.content": note}

    def stage_never_began(self, stage: str) -> None:
        """Deletes the run of a stage that never started, because an earlier stage of the same task failed."""
        run = self._runs.pop(stage)
        for key in ("runs", "new"):
            self._header[key].pop(stage, None)
        write_header(self._folder, self._header)
        if run.run_id:
            try:
                tracking.client(self._uri).delete_run(run.run_id)
            except Exception as error:  # see _start; the run is then ended with its parent
                _log.warning("MLflow at %s: %s", mask(self._uri), mask(str(error)))

    def log_texts(self, texts: Mapping[str, str]) -> None:
        """Uploads texts to the parent run: artifact path -> content."""
        for name, text in texts.items():
            self._parent.text(text, name)

    def log_file(self, path: Path, folder: str) -> None:
        """Uploads a file to the parent run, if the file exists."""
        if path.exists():
            self._parent.file(str(path), folder)

    def unchanged_since(self, run_id: str, metrics: Mapping[str, float], report: Path | None) -> None:
        """Copies the last run's results to the parent run, with a link to that run."""
        link = f"#/experiments/{self.experiment_id}/runs/{run_id}"
        note = f"Nothing has changed since run [{run_id}]({link}): its results are still valid."
        self._parent.log(metrics=metrics, tags={"switchyard.unchanged_since": run_id, "mlflow.note.content": note})
        if report is not None:
            self.log_file(report, "report")

    def ended(self, status: str, tags: dict[str, str]) -> None:
        """Ends the parent run as FINISHED, FAILED or KILLED; unsent records are left for `switchyard upload`."""
        self._parent.tags(tags)
        self._parent.end(status)
        if status != "FINISHED" and not self.offline and self.run_id and self.experiment_id:
            # Runs of interrupted stages are ended nowhere else.
            tracking.end_nested(self._uri, self.experiment_id, self.run_id)
        if self.offline:
            self._header["pid"] = None
            with suppress(OSError):  # on a full disk the dead process id has the same effect
                write_header(self._folder, self._header)
        else:
            shutil.rmtree(self._folder)

    def _start(self, key: str, name: str, tags: dict[str, str], record: RunRecord | None = None) -> tracking.Run:
        run_id = None
        started = int(time.time() * 1000)
        if key == PARENT_KEY or self.run_id:
            try:
                if self.experiment_id is None:
                    self.experiment_id = tracking.ensure_experiment(
                        self._uri, self._config.experiment, self._workspace.mlflow_artifacts
                    )
                if record:
                    name = run_name(self._uri, self.experiment_id, asdict(record))
                run_id = tracking.create_run(self._uri, self.experiment_id, name, tags, started)
            except UserError:
                raise
            except Exception as error:  # MLflow passes on the exceptions of its store backends
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
            # Fail before any stage runs, not after training a model that cannot be registered.
            raise UserError(f"tracking.uri: {why}")
        Journal(self._folder, key).note(why)


def _close_dead_runs(journals: Path, uri: str) -> None:
    """Ends the MLflow runs of pipeline runs that were killed."""
    for header_file in journals.glob(f"*/{HEADER}"):
        try:
            header = json.loads(header_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # the run has just ended, or the header is damaged, which `upload` reports
            continue
        if is_alive(header) or header["uri"] != mask(uri) or any(header_file.parent.glob("*.jsonl")):
            continue
        for run_id in header["runs"].values():
            tracking.end_if_running(uri, run_id)
        shutil.rmtree(header_file.parent, ignore_errors=True)
