"""Reads a cluster's KServe through kubectl: its deployment mode decides which parts of an InferenceService have an effect."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from switchyard.components.errors import StageError
from switchyard.pipelines import kubectl

STANDARD, KNATIVE = "standard", "knative"
# KServe's names of the modes before and since 0.16.
_MODES = {"RawDeployment": STANDARD, "Standard": STANDARD, "Serverless": KNATIVE, "Knative": KNATIVE}
_NAMESPACES = ("kserve", "kubeflow")
_READY_SECONDS, _POLL_SECONDS = 600.0, 3.0


@dataclass(frozen=True)
class KServe:
    """The known properties of a cluster's KServe.

    Attributes:
        mode: `standard` or `knative`; None: unknown.
        version: major and minor version; None: unknown.
        service: the existing InferenceService; None if there is none or it cannot be read.
    """

    mode: str | None = None
    version: tuple[int, int] | None = None
    service: Mapping[str, Any] | None = None

    @property
    def splits_standard(self) -> bool:
        """Whether this version can split requests for a canary in standard mode."""
        return self.version is not None and self.version >= (0, 20)


def look(name: str, namespace: str, mode: str | None) -> KServe:
    """Returns the cluster's KServe, read through kubectl.

    Args:
        name: name of the InferenceService.
        namespace: namespace of the InferenceService.
        mode: the user's choice; None: read from the service, else from KServe's configuration.
    """
    service = _get("inferenceservice.serving.kserve.io", name, namespace)
    mode = mode or _MODES.get(str(((service or {}).get("status") or {}).get("deploymentMode")))
    version = None
    for place in _NAMESPACES:
        controller = _get("deployment", "kserve-controller-manager", place)
        if controller is None:
            continue
        containers = controller["spec"]["template"]["spec"]["containers"]
        # The pod may contain a proxy with a version of its own.
        images = [c["image"] for c in sorted(containers, key=lambda c: c.get("name") != "manager")]
        found = next((m for i in images if (m := re.search(r":v?(\d+)\.(\d+)", i))), None)
        version = (int(found[1]), int(found[2])) if found else None
        settings = _get("configmap", "inferenceservice-config", place)
        if mode is None and settings is not None:
            mode = _MODES.get(str(json.loads(settings.get("data", {}).get("deploy", "{}")).get("defaultDeploymentMode")))
        break
    return KServe(mode, version, service)


def await_ready(name: str, namespace: str, *, seconds: float = _READY_SECONDS, poll: float = _POLL_SECONDS) -> None:
    """Waits until the applied version serves.

    `Ready` alone is not enough: it stays True for the previous version while a new pod fails.

    Raises:
        StageError: the version's pod fails, or is not ready in time.
    """
    deadline = time.monotonic() + seconds
    reason = "not yet seen by KServe"
    while time.monotonic() < deadline:
        service = _get("inferenceservice.serving.kserve.io", name, namespace) or {}
        status = service.get("status") or {}
        if status.get("observedGeneration", 0) >= service.get("metadata", {}).get("generation", 1):
            model = status.get("modelStatus") or {}
            up_to_date = model.get("transitionStatus", "UpToDate") == "UpToDate"
            failure = model.get("lastFailureInfo")
            conditions = {c["type"]: c for c in status.get("conditions") or []}
            ready = conditions.get("Ready", {})
            # KServe keeps the failure of an earlier version; only these two states refer to the current one.
            if model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
                serves = " The previous version still serves." if ready.get("status") == "True" else ""
                raise StageError(f"InferenceService {name}: the new version fails ({_failure(failure or {})}).{serves}")
            if up_to_date and ready.get("status") == "True":
                return
            reason = (
                f"{ready.get('reason', '')} {ready.get('message', '')}".strip() or f"{model.get('transitionStatus', 'not ready')}"
            )
        time.sleep(poll)
    raise StageError(
        f"InferenceService {name} is not ready after {seconds:.0f} s: {reason}. See kubectl describe -n {namespace}."
    )


def _failure(info: Mapping[str, Any]) -> str:
    parts = [str(info[k]) for k in ("reason", "message") if info.get(k)]
    if info.get("exitCode") is not None:
        parts.append(f"exit code {info['exitCode']}")
    return ", ".join(parts)


def _get(kind: str, name: str, namespace: str) -> dict[str, Any] | None:
    try:
        return kubectl.get(kind, name, namespace)
    except kubectl.KubectlError:  # unknown, see `KServe`
        return None
