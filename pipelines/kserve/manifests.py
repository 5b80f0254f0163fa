"""Writes the manifest of a KServe InferenceService that runs `switchyard serve` for a registered model.

https://kserve.github.io/website/docs/reference/crd-api (serving.kserve.io/v1beta1)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from switchyard.components.errors import UserError
from switchyard.components.process import variables
from switchyard.pipelines.config.kubeflow import Secret, StageResources, device

_PORT = 8080
# KServe's storage initializer copies STORAGE_URI to this folder before the container starts.
_MODEL_FOLDER = "/mnt/models"
_SIGNER_FOLDER, _SIGNER_FILE = "/etc/switchyard/signer", "key.pem"
_STORES = ("s3://", "gs://", "https://", "hdfs://", "webhdfs://", "abfs://", "abfss://", "pvc://")


@dataclass(frozen=True)
class Deployment:
    """A deployment of a registered version.

    Attributes:
        model: name in the registry and in URLs.
        version: version in the registry.
        location: URI of the version's files in the registry.
        tracking_uri: the registry's address inside the cluster; None: the model comes from the object store.
        name: name of the InferenceService.
        namespace, image, service_account: see Kubernetes.
        resources: cpu, memory, accelerator, node selector, tolerations, environment, secrets.
        replicas: minimum and maximum number of replicas.
        concurrency: concurrent requests per replica before another one starts; None: the mode's own scaling.
        canary: percentage of requests for this version, the rest go to the previous one; None: all of them.
        before: the previous version's predictor, if KServe splits requests in standard mode; None: split by Knative's revisions.
        token: secret with the clients' token; None: no token.
        digest: registered or signed digest of the version; None: the version has none and is trusted.
        signer: content of the PEM file with the public key or certificate that pods verify the signature with; None: they verify
            the digest alone.
    """

    model: str
    version: str
    location: str
    tracking_uri: str | None
    name: str
    namespace: str
    image: str
    service_account: str
    resources: StageResources
    replicas: tuple[int, int] = (1, 3)
    concurrency: int | None = None
    canary: int | None = None
    before: Mapping[str, Any] | None = None
    token: Secret | None = None
    digest: str | None = None
    signer: str | None = None


def service_name(model: str) -> str:
    """Returns a name that KServe accepts: lower-case letters, digits and dashes, a letter first, no dash last."""
    name = re.sub(r"[^a-z0-9-]+", "-", model.lower()).strip("-")
    return (name if name[:1].isalpha() else f"model-{name}")[:40].strip("-")


def in_store(location: str) -> bool:
    """Whether KServe's storage initializer can copy from there."""
    return location.startswith(_STORES)


def signer_map(wanted: Deployment) -> dict[str, Any] | None:
    """Returns the ConfigMap with the signer's public key; None if no signature is verified."""
    if wanted.signer is None:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _signer_name(wanted), "namespace": wanted.namespace},
        "immutable": True,
        "data": {_SIGNER_FILE: wanted.signer},
    }


def _signer_name(wanted: Deployment) -> str:
    # One for each key: the previous version's pods, which may start again beside a canary, keep theirs.
    return f"{wanted.name}-signer-{hashlib.sha256(str(wanted.signer).encode()).hexdigest()[:8]}"


def inference_service(wanted: Deployment) -> dict[str, Any]:
    """Returns the manifest of a deployment.

    Raises:
        UserError: the accelerator cannot serve, or the cluster cannot reach the model.
    """
    predictor: dict[str, Any] = {
        "minReplicas": wanted.replicas[0],
        "maxReplicas": wanted.replicas[1],
        "serviceAccountName": wanted.service_account,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 60,
        "containers": [_container(wanted)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    if wanted.signer is not None:
        predictor["volumes"].append({"name": "signer", "configMap": {"name": _signer_name(wanted)}})
    if wanted.concurrency is not None:
        predictor |= {"scaleMetric": "concurrency", "scaleTarget": wanted.concurrency}
    if wanted.canary is not None and wanted.before is None:
        predictor["canaryTrafficPercent"] = wanted.canary
    selector = {**_device(wanted).get("selector", {}), **wanted.resources.node_selector}
    if selector:
        predictor["nodeSelector"] = selector
    if wanted.resources.tolerations:
        predictor["tolerations"] = [t.model_dump(by_alias=True, exclude_none=True) for t in wanted.resources.tolerations]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": wanted.name,
            "namespace": wanted.namespace,
            "labels": {
                "app.kubernetes.io/name": wanted.name,
                "app.kubernetes.io/managed-by": "switchyard",
                "switchyard/model-version": wanted.version,
            },
            "annotations": {
                "switchyard/model": f"{wanted.model}@{wanted.version}",
                "serving.kserve.io/enable-prometheus-scraping": "true",
            },
        },
        "spec": {"predictor": predictor} if wanted.before is None else _split(predictor, wanted),
    }


def _split(predictor: dict[str, Any], wanted: Deployment) -> dict[str, Any]:
    """Returns a spec of the previous version with this one as its canary, which KServe 0.20 and later split in standard mode."""
    own = {k: v for k, v in predictor.items() if k not in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")}
    canary = {"trafficPercent": wanted.canary, "predictor": {"name": f"v{wanted.version}", **own}}
    return {"predictor": dict(wanted.before or {}), "canary": [canary]}


def _container(wanted: Deployment) -> dict[str, Any]:
    environment: list[dict[str, Any]]
    if wanted.tracking_uri is not None:
        arguments = [f"{wanted.model}@{wanted.version}", *([] if wanted.digest else ["--trust"])]
        environment = [{"name": "MLFLOW_TRACKING_URI", "value": wanted.tracking_uri}]
    elif in_store(wanted.location):
        arguments = [_MODEL_FOLDER, *(["--digest", wanted.digest] if wanted.digest else ["--trust"])]
        environment = [{"name": "STORAGE_URI", "value": wanted.location}]
    else:
        raise UserError(
            f"the files of {wanted.model} version {wanted.version} are at {wanted.location}, which a cluster cannot read. Give "
            "--cluster-tracking-uri, the address of MLflow inside the cluster, or register models with an object store."
        )
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 (the container's own)
    if wanted.signer is not None:
        arguments += ["--verify", f"{_SIGNER_FOLDER}/{_SIGNER_FILE}"]
        mounts.append({"name": "signer", "mountPath": _SIGNER_FOLDER})
    arguments = [*arguments, "--name", wanted.model, "--host", "0.0.0.0", "--port", str(_PORT), "--drain", "10"]  # noqa: S104
    environment += [{"name": k, "value": v} for k, v in wanted.resources.environment.items()]
    secrets = {**wanted.resources.secrets, **({variables.SERVE_TOKEN: wanted.token} if wanted.token else {})}
    environment += [{"name": k, "valueFrom": {"secretKeyRef": {"name": s.name, "key": s.key}}} for k, s in secrets.items()]
    limits = {"cpu": wanted.resources.cpu or "2", "memory": wanted.resources.memory or "4Gi"}
    return {
        "name": "kserve-container",
        "image": wanted.image,
        "command": ["switchyard", "serve"],
        "args": arguments,
        "env": environment,
        "ports": [{"containerPort": _PORT, "protocol": "TCP"}],
        "resources": {"requests": limits, "limits": {**limits, **_device(wanted).get("limits", {})}},
        # Allows for loading (seconds) and the download before it (any time).
        "startupProbe": {**_probe("ready"), "failureThreshold": 120, "periodSeconds": 5},
        "readinessProbe": {**_probe("ready"), "periodSeconds": 5},
        "livenessProbe": {**_probe("live"), "periodSeconds": 10, "timeoutSeconds": 5},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _probe(which: str) -> dict[str, Any]:
    return {"httpGet": {"path": f"/v2/health/{which}", "port": _PORT}}


def _device(wanted: Deployment) -> dict[str, Any]:
    if wanted.resources.accelerator is None:
        return {}
    found = device(wanted.resources.accelerator)
    if found.resource == "google.com/tpu":
        raise UserError("--accelerator: TPUs are not supported for serving; remove it, or give gpu.")
    return {"limits": {found.resource: str(found.count)}, "selector": found.node_selector}
