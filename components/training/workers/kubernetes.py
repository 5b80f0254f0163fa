"""Creates or resumes a TrainJob on a cluster, streams its nodes' logs, and deletes it at the end."""

from __future__ import annotations

import os
import queue
import threading
import time
from pathlib import Path
from typing import Any, Self

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from switchyard.components.errors import StageError, UserError, first_line
from switchyard.components.progress import say, warn
from switchyard.components.training.workers.protocol import Listener

_GROUP, _VERSION, _PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_POLL_SECONDS = 2.0
# Maximum outage of the API server.
_PATIENCE_SECONDS = 600.0
# (connect, read) timeouts; the read timeout ends streams of a server that vanished without closing the connection.
_LOG_TIMEOUT = (10, 300)
_LOG_LINES = 15
_NOT_FOUND, _FORBIDDEN = 404, 403


class TrainJobClient:
    """A context manager for a TrainJob, which exists inside the context and is deleted at its end."""

    def __init__(self, manifest: dict[str, Any]) -> None:
        self._manifest = manifest
        self._name = manifest["metadata"]["name"]
        self._namespace = _connect()
        self._jobs, self._core = client.CustomObjectsApi(), client.CoreV1Api()
        # By run of a pod: the thread that reads its log, the number of lines read; and the runs whose logs are complete.
        self._readers: dict[str, threading.Thread] = {}
        self._seen: dict[str, int] = {}
        self._whole: set[str] = set()
        self._lines: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._shown = ""
        self._away_since: float | None = None

    def __enter__(self) -> Self:
        """Creates the job, or resumes the job of an earlier attempt of this stage.

        Raises:
            UserError: Kubeflow Trainer is not installed, or access is forbidden.
            StageError: Kubernetes is unreachable, or rejects the job.
        """
        try:
            self._make()
        except ApiException as error:
            if error.status == _FORBIDDEN:
                raise UserError(_forbidden(error)) from error
            raise StageError(f"training: Kubernetes refused TrainJob {self._name}: {error.reason}: {error.body}") from error
        except (urllib3.exceptions.HTTPError, ConnectionError) as error:
            raise StageError(f"training: Kubernetes does not answer: {error}") from error
        return self

    def _make(self) -> None:
        old = self._get()
        if old is not None and _condition(old, "Failed"):
            self.delete()
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while self._get() is not None:
                if time.monotonic() > deadline:
                    raise StageError(
                        f"training: TrainJob {self._name} failed in an earlier try and still exists {_PATIENCE_SECONDS:g} s "
                        f"after it was deleted. See kubectl -n {self._namespace} describe trainjob {self._name}"
                    )
                time.sleep(_POLL_SECONDS)
            old = None
        if old is None:
            self._create()
            say(f"TrainJob {self._name} in namespace {self._namespace}")
        else:
            warn(f"TrainJob {self._name} exists from an earlier try; following it")

    def __exit__(self, *_: object) -> None:
        """Deletes the job and its pods."""
        try:
            self.delete()
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            warn(f"TrainJob {self._name} could not be deleted: {first_line(error)}")

    def follow(self, listener: Listener) -> None:
        """Passes the nodes' logs to the listener until the job ends; the first worker may be on any node.

        Raises:
            UserError: access is forbidden.
            StageError: the job failed or was deleted, or the API server was unreachable for too long.
        """
        while True:
            complete = failed = None
            try:
                job = self._get()
                if job is None:
                    raise StageError(f"training: TrainJob {self._name} was deleted from outside.")
                pods = self._pods()
                self._away_since = None
                self._show(pods)
                self._read_logs(pods)
                complete, failed = _condition(job, "Complete"), _condition(job, "Failed")
            except (ApiException, urllib3.exceptions.HTTPError, ConnectionError) as error:
                self._tolerate_outage(error)
            over = complete or failed
            if over and not self._readers:
                self._drain_logs(listener, 0)
                if failed:
                    raise StageError(f"training: TrainJob {self._name} failed: {failed.get('message', '')}{self._tails()}")
                return
            self._drain_logs(listener, _POLL_SECONDS)

    def delete(self) -> None:
        """Deletes the job and its pods, if it exists."""
        try:
            self._jobs.delete_namespaced_custom_object(
                _GROUP, _VERSION, self._namespace, _PLURAL, self._name, propagation_policy="Foreground"
            )
        except ApiException as error:
            if error.status != _NOT_FOUND:
                raise

    def _drain_logs(self, listener: Listener, seconds: float) -> None:
        """Passes lines from the readers to the listener for the given time."""
        end = time.monotonic() + seconds
        while True:
            try:
                source, line = self._lines.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                return
            listener.dispatch(line, source)

    def _read_logs(self, pods: list[Any]) -> None:
        """Starts a reader for every pod whose log is neither being read nor complete."""
        self._readers = {run: reader for run, reader in self._readers.items() if reader.is_alive()}
        for pod in pods:
            run = f"{pod.metadata.uid}/{sum(s.restart_count for s in pod.status.container_statuses or [])}"
            phase = pod.status.phase
            if phase in ("Running", "Succeeded", "Failed") and run not in self._readers and run not in self._whole:
                self._readers[run] = threading.Thread(
                    target=self._read_log, args=(pod.metadata.name, _index(pod), run, phase != "Running"), daemon=True
                )
                self._readers[run].start()

    def _read_log(self, pod: str, index: str, run: str, over: bool) -> None:
        """Puts new log lines of a pod's run into the queue until the log or the connection ends."""
        try:
            response = self._core.read_namespaced_pod_log(
                pod, self._namespace, container="node", follow=True, _preload_content=False, _request_timeout=_LOG_TIMEOUT
            )
            seen, number, rest = self._seen.get(run, 0), 0, b""
            try:
                for chunk in response.stream():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        number += 1
                        if number > seen:
                            self._lines.put((f"[node {index}] ", line.decode(errors="replace")))
                            self._seen[run] = number
            finally:
                response.release_conn()
        except (ApiException, urllib3.exceptions.HTTPError, ConnectionError):
            return  # a new reader resumes after the last line read while the pod exists
        if over:
            self._whole.add(run)

    def _pods(self) -> list[Any]:
        selector = f"jobset.sigs.k8s.io/jobset-name={self._name}"
        found: list[Any] = self._core.list_namespaced_pod(self._namespace, label_selector=selector).items
        return sorted(found, key=lambda pod: str(pod.metadata.creation_timestamp))

    def _show(self, pods: list[Any]) -> None:
        phases = [str(pod.status.phase) for pod in pods]
        shown = ", ".join(f"{phases.count(p)} {p.lower()}" for p in sorted(set(phases))) or "none yet"
        if shown != self._shown:
            self._shown = shown
            say(f"nodes: {shown}")

    def _tails(self) -> str:
        """Returns the last log lines of every node, as any of them may have failed."""
        found = ""
        for pod in self._pods():
            try:
                text = self._core.read_namespaced_pod_log(
                    pod.metadata.name, self._namespace, container="node", tail_lines=_LOG_LINES
                )
            except ApiException as error:
                text = f"(no log: {error.reason})"
            found += f"\n--- {pod.metadata.name} ({pod.status.phase})\n{text}"
        return found

    def _tolerate_outage(self, error: Exception) -> None:
        if isinstance(error, ApiException) and error.status == _FORBIDDEN:
            raise UserError(_forbidden(error)) from error
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            warn(f"Kubernetes is unreachable; the job continues: {first_line(error)}")
        if now - self._away_since > _PATIENCE_SECONDS:
            raise StageError(f"training: Kubernetes did not answer for {_PATIENCE_SECONDS:.0f} s: {error}") from error

    def _get(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._jobs.get_namespaced_custom_object(
                _GROUP, _VERSION, self._namespace, _PLURAL, self._name
            )
        except ApiException as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return found

    def _create(self) -> None:
        try:
            self._jobs.create_namespaced_custom_object(_GROUP, _VERSION, self._namespace, _PLURAL, self._manifest)
        except ApiException as error:
            if error.status == _NOT_FOUND:
                raise UserError(
                    "trainer.accelerator.nodes: the cluster has no Kubeflow Trainer (trainer.kubeflow.org/v1alpha1). Install "
                    "Kubeflow Trainer 2, or set nodes to 1."
                ) from error
            raise


def _connect() -> str:
    """Connects to the cluster; returns the namespace of the pod or of the kubeconfig."""
    try:
        if _NAMESPACE_FILE.exists():
            config.load_incluster_config()
            return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
        # Given, since the client reads the variable only at its import, which is earlier than a forked stage's environment.
        file = os.environ.get("KUBECONFIG")
        config.load_kube_config(file)
        _, active = config.list_kube_config_contexts(file)
    except config.ConfigException as error:
        raise UserError(
            f"trainer.accelerator.nodes: no Kubernetes configuration was found ({error}). Run in a pod with a service "
            "account, or set KUBECONFIG."
        ) from error
    return str(active["context"].get("namespace", "default"))


def _condition(job: dict[str, Any], kind: str) -> dict[str, Any] | None:
    conditions = job.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


def _index(pod: Any) -> str:
    labels: dict[str, str] = pod.metadata.labels or {}
    return labels.get("batch.kubernetes.io/job-completion-index", "")


def _forbidden(error: ApiException) -> str:
    return (
        f"trainer.accelerator.nodes: the stage's service account lacks permission: {error.reason}: {str(error.body)[:300]}. "
        "Apply infra/kubeflow-trainer, and set kubeflow.service_account to its account."
    )
