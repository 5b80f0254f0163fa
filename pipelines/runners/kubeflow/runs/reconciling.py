"""Reconciles MLflow with ended KFP runs: ends runs that no task could end, and clears failures that a retry has fixed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import yaml

from switchyard.components.errors import StageError, UserError, first_line
from switchyard.components.text.redaction import mask
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.runners.kubeflow.carried_files import unpacked
from switchyard.pipelines.runners.kubeflow.cluster.client import KubeflowClient
from switchyard.pipelines.runners.kubeflow.cluster.run import TERMINAL, Run
from switchyard.pipelines.runners.kubeflow.parent_run import KFP_TAG, Parent, reconcile
from switchyard.pipelines.runners.kubeflow.runs.plugin import of_plugin

# Page size of MLflow's searches, newest first; older runs are not read.
_MOST = 1000


def reconcile_ended(client: KubeflowClient, runs: Sequence[Run], given: str | None) -> list[str]:
    """Reconciles the MLflow runs of ended KFP runs; returns warnings about servers that could not be reached.

    Args:
        client: client of the KFP.
        runs: KFP runs; those that have not ended are skipped.
        given: tracking server; default: the one that a run was submitted with, or that its tasks log to.
    """
    by_server: dict[str, dict[str, Run]] = defaultdict(dict)
    # Caches servers by pipeline version: a run started by reference needs a request for its pipeline.
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
        except Exception as error:  # MLflow passes on the exceptions of its store backends
            unsaid.append(
                f"MLflow at {mask(server)} is unreachable from this machine ({first_line(error)}), so it may still show "
                "finished runs as running. Give its address with --tracking-uri, or MLFLOW_TRACKING_URI."
            )
    return unsaid


def _unreconciled(server: str, ended: Mapping[str, Run], *, every: bool) -> Iterator[tuple[Parent, str]]:
    """Yields parent runs with the KFP run's state; without `every`, only those with a run that is still RUNNING."""
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
    """Returns the tracking server of the submitted config, else of the run's tasks; None when neither is an http address."""
    try:
        spec = client.pipeline_of(run)
    except (UserError, StageError):
        return None  # its pipeline was deleted
    variables: dict[str, str] = {}
    for executor in (spec.get("deploymentSpec") or {}).get("executors", {}).values():
        for variable in (executor.get("container") or {}).get("env", []):
            # Tasks differ in the record they carry; the longest is the complete one.
            if len(str(variable.get("value", ""))) > len(variables.get(variable["name"], "")):
                variables[variable["name"]] = str(variable["value"])
    context = RunContext.of(variables)
    texts = json.loads(unpacked(context.record) or "{}").get("texts", {})
    submitted = (yaml.safe_load(texts.get("config/pipeline.yaml", "")) or {}).get("tracking") or {}
    known = (submitted.get("uri"), context.tracking_uri)
    return next((str(uri) for uri in known if str(uri or "").startswith("http")), None)
