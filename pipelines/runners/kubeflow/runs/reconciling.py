"""MLflow's runs of KFP runs that are over: what no task could end is ended, what a retry has mended is no failure any more."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import yaml

from switchyard.components.errors import StageError, UserError, first_line
from switchyard.components.text.redaction import mask
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.runners.kubeflow.cluster.client import KubeflowClient
from switchyard.pipelines.runners.kubeflow.cluster.run import TERMINAL, Run
from switchyard.pipelines.runners.kubeflow.parent_run import KFP_TAG, Parent, reconcile
from switchyard.pipelines.runners.kubeflow.runs.plugin import of_plugin

# As many as MLflow returns at once; the newest come first.
_MOST = 1000


def reconcile_ended(client: KubeflowClient, runs: Sequence[Run], given: str | None) -> list[str]:
    """Reconciles MLflow's runs of those KFP runs that are over; returns what could not be done, for a person to read.

    Args:
        client: of the KFP.
        runs: some.
        given: tracking server; None: the one that a run was submitted with, or that its tasks log to.
    """
    by_server: dict[str, dict[str, Run]] = defaultdict(dict)
    # Of runs by reference the pipeline must be asked for: once a version.
    known: dict[object, str | None] = {}
    for run in runs:
        if run.state in TERMINAL:
            key = run.version or run.run_id
            if not given and key not in known:
                known[key] = _server(client, run)
            server = given or known[key]
            if server:
                by_server[server][run.run_id] = run
    unsaid = []
    for server, ended in by_server.items():
        try:
            for parent, state in _unreconciled(server, ended, every=len(runs) == 1):
                reconcile(parent, state)
        except Exception as error:  # MLflow raises what its many stores raise
            unsaid.append(
                f"MLflow at {mask(server)} cannot be reached from here ({first_line(error)}): what it shows as running of runs "
                "that are over stays so. Say where it is with --tracking-uri, or MLFLOW_TRACKING_URI."
            )
    return unsaid


def _unreconciled(server: str, ended: Mapping[str, Run], *, every: bool) -> Iterator[tuple[Parent, str]]:
    """Yields the parent runs, each with the KFP run's state; not `every`: those alone of which something is still running."""
    mlflow = tracking.client(server)
    experiments = [e.experiment_id for e in mlflow.search_experiments()]
    plugins = {p.run_id: run for run in ended.values() if (p := of_plugin(run, server))}
    running = mlflow.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=_MOST)
    unfinished = {r.info.run_id for r in running} | {r.data.tags.get("mlflow.parentRunId") for r in running}
    newest = ["attributes.start_time DESC"]
    for found in mlflow.search_runs(experiments, f"tags.`{KFP_TAG}` LIKE '%'", order_by=newest, max_results=_MOST):
        run = ended.get(found.data.tags[KFP_TAG])
        if run is not None and (every or found.info.run_id in unfinished):
            yield Parent(server, found.info.experiment_id, found.info.run_id, ""), run.state
    for run_id, run in plugins.items():
        if every or run_id in unfinished:
            yield Parent(server, mlflow.get_run(run_id).info.experiment_id, run_id, ""), run.state


def _server(client: KubeflowClient, run: Run) -> str | None:
    """Returns the tracking server as whoever submitted the run reached it, else as its tasks do; None: neither is known."""
    try:
        spec = client.pipeline_of(run)
    except (UserError, StageError):
        return None  # its pipeline was deleted
    variables: dict[str, str] = {}
    for executor in (spec.get("deploymentSpec") or {}).get("executors", {}).values():
        for variable in (executor.get("container") or {}).get("env", []):
            # The longest record is the whole one.
            if len(str(variable.get("value", ""))) > len(variables.get(variable["name"], "")):
                variables[variable["name"]] = str(variable["value"])
    context = RunContext.of(variables)
    texts = json.loads(context.record or "{}").get("texts", {})
    submitted = (yaml.safe_load(texts.get("config/pipeline.yaml", "")) or {}).get("tracking") or {}
    known = (submitted.get("uri"), context.tracking_uri)
    return next((str(uri) for uri in known if str(uri or "").startswith("http")), None)
