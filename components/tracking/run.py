"""Logs to MLflow; no other module writes to it. Operations that cannot be sent are buffered (`journal`) and sent later.

A runner creates the runs; a stage logs to the run that it receives (`current_run`) and starts none.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from switchyard.components.errors import UserError, first_line
from switchyard.components.process.full_disk import full_disk
from switchyard.components.text.redaction import mask, take_credentials
from switchyard.components.tracking.context import RunContext
from switchyard.components.tracking.database import files_beside, locked_database
from switchyard.components.tracking.journal import PARENT_KEY, Journal
from switchyard.components.tracking.mlflow_errors import is_denial, is_refusal, refusal
from switchyard.components.tracking.model_registry import DEFERRED, REFUSED, ForeignModelError, Registration, register_model
from switchyard.components.tracking.operations import BATCH, Operation, apply, log_batch, metrics_of, params_of, tags_of

_log = logging.getLogger(__name__)

# An unresponsive server must not delay training: two tries, then the journal.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
_SYSTEM_METRICS_SECONDS = 2.0

# Tag on the data gate's runs; used to find the previous run's statistics.
GATE_TAG = "switchyard.data_gate"


class Run:
    """An MLflow run to log to. Its methods do not raise when the server is unreachable."""

    def __init__(self, uri: str | None, run_id: str | None, journal: Journal | None = None) -> None:
        self._uri, self.run_id, self._journal = uri, run_id, journal
        self._offline = not uri or not run_id
        # The reason why MLflow refused an operation, and why it denies access; None if it accepts all or is unreachable.
        self.refused: str | None = None
        self._denied: str | None = None
        # Message about records lost by both MLflow and the journal.
        self.lost: str | None = None

    def params(self, values: Mapping[str, Any]) -> None:
        """Logs parameters, truncated to MLflow's limit of 6,000 characters."""
        self._do(params_of(values))

    def tags(self, values: Mapping[str, str]) -> None:
        """Sets tags on the run."""
        self._do(tags_of(values))

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Logs metrics at a step (an epoch), under names that MLflow accepts, see `metric_key`."""
        self._do(metrics_of(values, step))

    def log(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Logs parameters, tags and metrics in one request, see `params`, `tags` and `metrics`."""
        operations = [params_of(params or {}), tags_of(tags or {}), metrics_of(metrics or {}, 0)]
        operations = [operation for operation in operations if operation["values"]]
        if not self._offline and all(len(operation["values"]) <= BATCH for operation in operations):
            with suppress(Exception):  # each is tried alone, which tells which of them is at fault
                log_batch(client(self._uri or ""), self.run_id or "", operations)
                return
        for operation in operations:
            self._do(operation)

    def file(self, path: str, folder: str = "") -> None:
        """Uploads a file as an artifact."""
        self._do({"op": "file", "path": os.path.abspath(path), "folder": folder})

    def file_as(self, path: str, name: str) -> None:
        """Uploads a file as an artifact under another name, which may contain folders separated by `/`."""
        self._do({"op": "file_as", "path": os.path.abspath(path), "name": name})

    def text(self, content: str, name: str) -> None:
        """Uploads a text as an artifact."""
        self._do({"op": "text", "content": mask(content), "name": name})

    def table(self, columns: Mapping[str, list[Any]], name: str) -> None:
        """Logs a table that MLflow's UI shows and compares between runs."""
        self._do({"op": "table", "columns": dict(columns), "name": name})

    def dataset(self, name: str, digest: str, source: str, profile: str, *, schema: str, context: str) -> None:
        """Logs a dataset as the run's input.

        Args:
            name: name of the dataset.
            digest: at most 36 characters; a name and a digest identify a dataset in the experiment.
            source: where it is from.
            profile: JSON with facts on it.
            schema: JSON in MLflow's form, `{"mlflow_colspec": [...]}`; empty for none.
            context: what the run uses it for.
        """
        found = {"name": name, "digest": digest, "source": mask(source), "profile": profile, "schema": schema, "context": context}
        self._do({"op": "dataset", **found})

    def end(self, status: str) -> None:
        """Ends the run: FINISHED, FAILED or KILLED."""
        self._do({"op": "end", "status": status, "time": int(time.time() * 1000)})

    def register(self, model: Mapping[str, Any]) -> Registration:
        """Records a model, see `model_registry.register_model`.

        The status is `deferred` when the server is unreachable, and `refused`, with the reason, when the server rejects it.

        Raises:
            ForeignModelError: the registered model has versions that Switchyard did not make.
        """
        refused = self._denied
        if not self._offline:
            try:
                return register_model(client(self._uri or ""), self.run_id or "", model)
            except ForeignModelError:
                raise
            except Exception as error:  # MLflow's stores raise many types of errors
                self._go_offline(error, f"to register {model['name']}")
                refused = refusal(self._uri or "", error) if is_refusal(error) or is_denial(error) else None
        self._keep({"op": "register", "model": dict(model)})
        return Registration(REFUSED, None, None, refused) if refused else Registration(DEFERRED, None, None)

    @property
    def offline(self) -> bool:
        """Whether the server is unreachable."""
        return self._offline

    def _do(self, operation: Operation) -> None:
        if not self._offline:
            try:
                apply(client(self._uri or ""), self.run_id or "", operation)
                return
            except Exception as error:  # see register
                self._go_offline(error, f"{operation['op']} {operation.get('name') or operation.get('path') or ''}".strip())
        self._keep(operation)

    def _go_offline(self, error: Exception, what: str) -> None:
        from switchyard.components.progress import warn

        if is_refusal(error):
            _log.warning("MLflow refuses %s", what, exc_info=True)
            self._note(f"{what}: {first_line(error)}")
            warn(f"MLflow refuses {what}: {first_line(error)}. It is kept on disk, and the other records are sent")
            return
        self._offline = True
        _log.warning("MLflow at %s: %s", mask(self._uri or ""), mask(str(error)))
        if is_denial(error):
            self._denied = refusal(self._uri or "", error)
            self._note(self._denied)
            warn(f"{self._denied} The run continues, and its record is kept on disk")
            return
        warn(full_disk(error) or "MLflow is unreachable; the run continues, and its record is kept on disk")

    def _note(self, why: str) -> None:
        self.refused = why
        if self._journal:
            with suppress(OSError):  # see _keep
                self._journal.note(why)

    def _keep(self, operation: Operation) -> None:
        from switchyard.components.progress import warn

        if self._journal:
            try:
                self._journal.append(operation)
            except OSError as error:
                full = full_disk(error)
                if full is None:
                    raise
                # The run's result matters more than its record.
                self.lost = f"a part of the run's record is lost ({operation['op']}): {full}"
                warn(self.lost)


_clients: dict[str, Any] = {}


def client(uri: str) -> Any:
    """Returns the MlflowClient of a tracking server or database."""
    uri = take_credentials(uri)
    if uri not in _clients:
        for key, value in _PATIENCE.items():
            os.environ.setdefault(key, value)
        from mlflow import MlflowClient

        with locked_database(uri):
            try:
                _clients[uri] = MlflowClient(tracking_uri=uri, registry_uri=uri)
            except ModuleNotFoundError as error:
                raise UserError(
                    f"tracking.uri: {mask(uri)} needs the Python package {error.name!r}, which is not installed; install the "
                    "database's driver in this environment"
                ) from error
    return _clients[uri]


def current_run(*, parent: bool = False) -> Run:
    """Returns the run that the runner created for this stage, or its parent, the pipeline's run.

    Without one, records go to the runner's journal; without a runner they are dropped.
    """
    context = RunContext.current()
    key = PARENT_KEY if parent else context.stage or "stage"
    journal = Journal(Path(context.journal), key) if context.journal else None
    return Run(context.tracking_uri or None, (context.parent_run_id if parent else context.run_id) or None, journal)


def nested(name: str, tags: Mapping[str, str]) -> Run:
    """Creates a run nested in this stage's; while MLflow is unreachable, returns one that drops its records."""
    stage = current_run()
    context = RunContext.current()
    uri, experiment = context.tracking_uri, context.experiment_id
    if stage.offline or not uri or not experiment:
        return Run(None, None)
    try:
        return Run(uri, create_run(uri, experiment, name, {"mlflow.parentRunId": stage.run_id or "", **tags}))
    except Exception as error:  # MLflow's stores raise many types of errors
        from switchyard.components.progress import warn

        _log.warning("MLflow at %s: %s", mask(uri), mask(str(error)))
        if is_refusal(error) or is_denial(error):
            warn(refusal(uri, error))
        return Run(None, None)


def public_uri() -> str:
    """Returns the tracking server's address with its password masked."""
    return mask(RunContext.current().tracking_uri)


def ensure_experiment(uri: str, name: str, artifacts: Path | None) -> str:
    """Returns an experiment's id, creating it if necessary: with its files beside a database file, else under `artifacts`.

    Raises:
        UserError: the experiment was deleted.
    """
    from mlflow.exceptions import MlflowException

    mlflow_client = client(uri)
    found = mlflow_client.get_experiment_by_name(name)
    if found is None:
        # Beside the database, since two workspaces (one may be a copy of the other) may share it.
        place = files_beside(uri, artifacts) or (None if uri.startswith(("http", "databricks")) else artifacts)
        location = place and place.resolve().as_uri()
        try:
            return str(mlflow_client.create_experiment(name, artifact_location=location))
        except MlflowException:  # another run created it in the meantime
            found = mlflow_client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise UserError(
            f"tracking.experiment: {name!r} is deleted in MLflow. Restore it, or set another name: "
            f"MLFLOW_TRACKING_URI={shlex.quote(mask(uri))} mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def last_passed_gate(mlflow_client: Any, experiment_id: str, pipeline: str) -> str | None:
    """Returns the id of the last data gate run that passed for a pipeline."""
    where = f"tags.`{GATE_TAG}` = 'passed' AND tags.`switchyard.pipeline` = '{pipeline}'"
    runs = mlflow_client.search_runs([experiment_id], where, order_by=["attributes.start_time DESC"], max_results=1)
    return str(runs[0].info.run_id) if runs else None


def create_run(uri: str, experiment_id: str, name: str, tags: Mapping[str, str], start_time: int | None = None) -> str:
    """Creates a run and returns its id."""
    run = client(uri).create_run(experiment_id, start_time=start_time or int(time.time() * 1000), run_name=name, tags=dict(tags))
    return str(run.info.run_id)


def end_if_running(uri: str, run_id: str) -> None:
    """Marks a run and its nested runs as KILLED unless they have ended; only logs errors."""
    try:
        info = client(uri).get_run(run_id).info
        if info.status == "RUNNING":
            client(uri).set_terminated(run_id, "KILLED")
            end_nested(uri, info.experiment_id, run_id)
    except Exception:  # MLflow's stores raise many types of errors
        _log.warning("could not end run %s", run_id, exc_info=True)


def end_nested(uri: str, experiment_id: str, run_id: str) -> None:
    """Marks the unfinished runs nested in a run as KILLED, recursively; only logs errors."""
    where = f"tags.mlflow.parentRunId = '{run_id}' AND attributes.status = 'RUNNING'"
    try:
        for run in client(uri).search_runs([experiment_id], where):
            client(uri).set_terminated(run.info.run_id, "KILLED")
            end_nested(uri, experiment_id, run.info.run_id)
    except Exception:  # see end_if_running
        _log.warning("could not end the runs below %s", run_id, exc_info=True)


def watch_system() -> Any:
    """Starts MLflow's monitor of CPU, memory, disk, network and GPU on the current run; returns it for `finish()`, or None."""
    run = current_run()
    if run.offline:
        return None
    try:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(
            run.run_id, sampling_interval=_SYSTEM_METRICS_SECONDS, tracking_uri=RunContext.current().tracking_uri
        )
        monitor.start()
    except Exception:
        _log.warning("no system metrics", exc_info=True)
        return None
    return monitor
