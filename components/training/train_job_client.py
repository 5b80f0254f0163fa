"""One TrainJob on a cluster: made or taken up again, its first node's log read, taken away at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from components.errors import StageError, UserError
from components.progress import say, warn
from components.training.listener import Listener

_GROUP, _VERSION, _PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_POLL_SECONDS = 2.0
# The API server may be away so long.
_PATIENCE_SECONDS = 600.0
_LOG_LINES = 15
_NOT_FOUND, _CONFLICT, _FORBIDDEN = 404, 409, 403


class TrainJobClient:
    """A context: inside of it the TrainJob is there; it ends with it, however it ends."""

    def __init__(self, manifest: dict[str, Any]) -> None:
        self._manifest = manifest
        self._name = manifest["metadata"]["name"]
        self._namespace = _connect()
        self._jobs, self._core = client.CustomObjectsApi(), client.CoreV1Api()
        # Of which run of a pod how many lines were read.
        self._read: dict[str, int] = {}
        self._shown = ""
        self._away_since: float | None = None

    def __enter__(self) -> Self:
        """Makes the job, or takes up the one that an earlier try of this stage made.

        Raises:
            UserError: the cluster has no Kubeflow Trainer, or does not allow it.
        """
        old = self._get()
        if old is not None and _condition(old, "Failed"):
            self._delete()
            while self._get() is not None:
                time.sleep(_POLL_SECONDS)
            old = None
        if old is None:
            self._create()
            say(f"TrainJob {self._name} in namespace {self._namespace}")
        else:
            warn(f"TrainJob {self._name} is there from an earlier try and is followed")
        return self

    def __exit__(self, *_: object) -> None:
        """Takes the job and its pods away."""
        try:
            self._delete()
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            warn(f"TrainJob {self._name} could not be deleted: {str(error).splitlines()[0]}")

    def follow(self, listener: Listener) -> None:
        """Hands the first node's log to the listener until the job is over.

        Raises:
            StageError: the job failed, is gone, or the API server is away for too long.
        """
        while True:
            try:
                job = self._get()
                if job is None:
                    raise StageError(f"training: TrainJob {self._name} was deleted by someone else.")
                over = _condition(job, "Complete"), _condition(job, "Failed")
                pods = self._pods()
                self._show(pods)
                for pod in pods:
                    if _index(pod) == "0" and pod.status.phase in ("Running", "Succeeded", "Failed"):
                        for line in self._new_lines(pod):
                            listener.hear(line)
                self._away_since = None
            except (ApiException, urllib3.exceptions.HTTPError, ConnectionError) as error:
                self._bear(error)
                over = None, None
            if over[0]:
                return
            if over[1]:
                raise StageError(f"training: TrainJob {self._name} failed: {over[1].get('message', '')}{self._tails()}")
            time.sleep(_POLL_SECONDS)

    def _new_lines(self, pod: Any) -> Iterator[str]:
        """Yields what a run of a pod has printed since it was last asked, until it ends or the connection does."""
        run = f"{pod.metadata.uid}/{sum(s.restart_count for s in pod.status.container_statuses or [])}"
        response = self._core.read_namespaced_pod_log(
            pod.metadata.name, self._namespace, container="node", follow=True, _preload_content=False
        )
        seen = self._read.get(run, 0)
        rest = b""
        try:
            number = 0
            for chunk in response.stream():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    number += 1
                    if number > seen:
                        self._read[run] = number
                        yield line.decode(errors="replace")
        finally:
            response.release_conn()

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
        """The last lines of every node: the one that failed may not be the first."""
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

    def _bear(self, error: Exception) -> None:
        if isinstance(error, ApiException) and error.status == _FORBIDDEN:
            raise UserError(_forbidden(error)) from error
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            warn(f"Kubernetes does not answer; the job goes on: {str(error).splitlines()[0][:200]}")
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
            if error.status == _FORBIDDEN:
                raise UserError(_forbidden(error)) from error
            raise StageError(f"training: Kubernetes refused TrainJob {self._name}: {error.reason}: {error.body}") from error

    def _delete(self) -> None:
        try:
            self._jobs.delete_namespaced_custom_object(
                _GROUP, _VERSION, self._namespace, _PLURAL, self._name, propagation_policy="Foreground"
            )
        except ApiException as error:
            if error.status != _NOT_FOUND:
                raise


def _connect() -> str:
    """Finds the cluster and returns the namespace: the pod's own, or the kubeconfig's."""
    try:
        if _NAMESPACE_FILE.exists():
            config.load_incluster_config()
            return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
        config.load_kube_config()
        _, active = config.list_kube_config_contexts()
    except config.ConfigException as error:
        raise UserError(
            f"trainer.accelerator.nodes: no cluster is known to this stage ({error}). It runs in a pod with a service account, "
            "or where KUBECONFIG names a file."
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
        f"trainer.accelerator.nodes: the stage's service account may not do this: {error.reason}: {str(error.body)[:300]}. Apply "
        "infra/kubeflow-trainer, and set kubeflow.service_account to its account."
    )
