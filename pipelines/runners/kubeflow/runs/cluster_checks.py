"""Checks a cluster's requirements before the first run, with KFP's API, MLflow's API and, if available, kubectl."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from switchyard.components.errors import StageError, UserError, first_line
from switchyard.components.text.addresses import is_loopback
from switchyard.components.text.redaction import mask
from switchyard.components.tracking import run as tracking
from switchyard.pipelines import kubectl
from switchyard.pipelines.config.kubeflow import Device, KubeflowConfig, device
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.finding import FAILED, OK, UNKNOWN, Finding
from switchyard.pipelines.kubectl import KubectlError
from switchyard.pipelines.runners.kubeflow.cluster.client import KubeflowClient
from switchyard.pipelines.runners.kubeflow.contract import OLDEST_KFP
from switchyard.pipelines.runners.kubeflow.runs.plugin import of_plugin

# Namespace of KFP itself; its settings are not in the users' namespaces.
_KFP = "kubeflow"
# Permissions that KFP's launcher and Argo's executor need in a task's pod (infra/kubeflow/runner.yaml).
_ROLES = (
    ("get", "pods"),
    ("patch", "pods"),
    ("create", "workflowtaskresults.argoproj.io"),
    ("patch", "workflowtaskresults.argoproj.io"),
)
_WORKSPACE_ROLES = (("get", "persistentvolumeclaims"), ("create", "persistentvolumeclaims"))
_TRAIN_JOB_ROLES = (("create", "trainjobs.trainer.kubeflow.org"), ("delete", "trainjobs.trainer.kubeflow.org"), ("list", "pods"))


def examine(client: KubeflowClient, config: PipelineConfig | None, tracking_uri: str | None) -> list[Finding]:
    """Returns the findings of all checks.

    Args:
        client: client of the KFP to check.
        config: config of the pipeline to run; None checks the requirements of every pipeline.
        tracking_uri: address of MLflow from this machine.
    """
    look = _Examination(client, config, tracking_uri)
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("version", look.version),
        ("runs", look.runs),
        ("kubectl", look.kubectl),
        ("MLflow plugin", look.plugin),
        ("MLflow (this machine)", look.mlflow),
        ("MLflow (cluster)", look.mlflow_inside),
        ("image", look.image),
        ("storage class", look.storage),
        ("quota", look.quota),
        ("accelerators", look.accelerators),
        ("roles", look.roles),
    ]
    found: list[Finding] = []
    for name, check in checks:
        try:
            found += check()
        except KubectlError as error:
            found.append(Finding(name, UNKNOWN, str(error)))
        except (StageError, UserError) as error:
            found.append(Finding(name, FAILED, str(error)))
    return found


class _Examination:
    def __init__(self, client: KubeflowClient, config: PipelineConfig | None, tracking_uri: str | None) -> None:
        self._client, self._config, self._uri = client, config, tracking_uri
        self._wanted = config.kubeflow if config else KubeflowConfig()
        self._namespace = client.connection.namespace or _KFP
        self._settings: Mapping[str, Any] | None = None

    def version(self) -> Iterator[Finding]:
        health = self._client.health()
        tag = str(health.get("tag_name") or "")
        numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", tag)
        if numbers is None:
            yield Finding(
                "version",
                UNKNOWN,
                f"KFP reports the version {tag or 'unknown'}; {OLDEST_KFP} or later is required for its security fixes",
            )
        elif tuple(map(int, numbers.groups())) < tuple(map(int, OLDEST_KFP.split("."))):
            yield Finding("version", FAILED, f"KFP {tag}: upgrade to {OLDEST_KFP} or later, for its security fixes")
        else:
            yield Finding("version", OK, f"KFP {tag}")
        if health.get("multi_user") and not self._client.connection.namespace:
            yield Finding("namespace", FAILED, "this KFP has several users: set --namespace")

    def runs(self) -> Iterator[Finding]:
        found = self._client.runs(None, 1)
        yield Finding("runs", OK, "listed" + ("" if found else "; none exists yet"))

    def kubectl(self) -> Iterator[Finding]:
        context = kubectl.run("config", "current-context").strip()
        if kubectl.get("namespace", self._namespace) is None:
            yield Finding(
                "kubectl",
                FAILED,
                f"context {context}: its cluster has no namespace {self._namespace}; use another context, or set --namespace",
            )
        else:
            known = "not verified to be the cluster of --host"
            yield Finding("kubectl", OK, f"context {context}, namespace {self._namespace}; {known}")

    def plugin(self) -> Iterator[Finding]:
        found = Finding
        try:
            settings = self._kfp_settings()
        except KubectlError as error:
            yield self._plugin_by_runs(str(error))
            return
        plugin = (settings.get("plugins") or {}).get("mlflow")
        if not plugin:
            yield found("MLflow plugin", OK, "off: submit creates the MLflow runs, for which it needs tracking.uri")
        elif not (plugin.get("settings") or {}).get("injectUserEnvVars"):
            message = (
                "on without injectUserEnvVars: stages cannot log to the runs that KFP creates (infra/kubeflow/mlflow-plugin.json)"
            )
            yield found("MLflow plugin", FAILED, message)
        else:
            yield found("MLflow plugin", OK, f"on, with {mask(str(plugin.get('endpoint')))}")

    def _plugin_by_runs(self, why: str) -> Finding:
        runs = self._client.runs(None, 1)
        if not runs:
            return Finding("MLflow plugin", UNKNOWN, f"unknown before the first run ({why})")
        on = of_plugin(runs[0]) is not None
        return Finding("MLflow plugin", OK, ("on" if on else "off") + " in the newest run")

    def _kfp_settings(self) -> Mapping[str, Any]:
        if self._settings is None:
            where = ("-n", _KFP, "deploy/ml-pipeline", "-c", "ml-pipeline-api-server")
            text = kubectl.run("exec", *where, "--", "cat", "/config/config.json")
            self._settings = json.loads(text)
        return self._settings

    def mlflow(self) -> Iterator[Finding]:
        if not self._uri or not self._uri.startswith("http"):
            yield Finding(
                "MLflow (this machine)",
                UNKNOWN,
                "no server is configured; set tracking.uri (http://...) or --tracking-uri, which the verdict's exit code needs",
            )
            return
        try:
            tracking.client(self._uri).search_experiments(max_results=1)
        except Exception as error:  # MLflow passes on the exceptions of its store backends
            yield Finding(
                "MLflow (this machine)", FAILED, f"{mask(self._uri)} is not a reachable MLflow server: {first_line(error)}"
            )
            return
        yield Finding("MLflow (this machine)", OK, mask(self._uri))

    def mlflow_inside(self) -> Iterator[Finding]:
        """Checks that MLflow's service is ready and admits the namespace; whether pods reach it is not visible from outside."""
        name = "MLflow (cluster)"
        uri = self._wanted.defaults.environment.get("MLFLOW_TRACKING_URI") or (
            self._config.tracking.uri if self._config else None
        )
        if not uri:
            try:
                uri = ((self._kfp_settings().get("plugins") or {}).get("mlflow") or {}).get("endpoint")
            except KubectlError:
                uri = None
        host = urlsplit(uri or "").hostname
        if not host:
            yield Finding(
                name,
                UNKNOWN,
                "no server is configured for the tasks; set tracking.uri or kubeflow.defaults.environment.MLFLOW_TRACKING_URI",
            )
            return
        if is_loopback(uri or ""):
            message = f"{host} would be the pod itself; set kubeflow.defaults.environment.MLFLOW_TRACKING_URI"
            yield Finding(name, FAILED, f"{message} to an address that tasks can reach")
            return
        service, _, rest = host.partition(".")
        place = rest.split(".")[0] or self._namespace
        if rest and not re.fullmatch(r"[a-z0-9-]+(\.svc(\.cluster\.local)?)?", rest):
            yield Finding(name, UNKNOWN, f"{host} is not a service of the cluster; the first run shows whether pods reach it")
            return
        yield self._service(name, service, place)

    def _service(self, name: str, service: str, place: str) -> Finding:
        if kubectl.get("service", service, place) is None:
            return Finding(name, FAILED, f"there is no service {service} in namespace {place} (infra/mlflow)")
        ready = [s for s in (kubectl.get("endpoints", service, place) or {}).get("subsets") or [] if s.get("addresses")]
        if not ready:
            return Finding(name, FAILED, f"service {service} in {place} has no ready pod: kubectl -n {place} get pods")
        labels = ((kubectl.get("namespace", self._namespace) or {}).get("metadata") or {}).get("labels") or {}
        for policy in kubectl.every("networkpolicy", place):
            if not _admits(policy, labels) and policy["metadata"]["name"] == service:
                message = (
                    f"its NetworkPolicy does not admit namespace {self._namespace}: kubectl label namespace {self._namespace}"
                )
                return Finding(name, FAILED, f"{message} {_label_of(policy)}")
        return Finding(
            name,
            OK,
            f"service {service} in {place} is ready and admits {self._namespace}; DNS inside pods is not verified",
        )

    def image(self) -> Iterator[Finding]:
        image = self._wanted.image
        if image is None:
            yield Finding(
                "image",
                UNKNOWN,
                "kubeflow.image is not set (give PIPELINE): build it with make image, and push it to a registry of the cluster",
            )
        else:
            yield Finding("image", UNKNOWN, f"{image}: the first pod shows whether nodes can pull it")
        for secret in self._wanted.image_pull_secrets:
            found = kubectl.get("secret", secret, self._namespace)
            if found is None:
                yield Finding(
                    "pull secret",
                    FAILED,
                    f"there is no secret {secret} in {self._namespace}: kubectl create secret docker-registry",
                )
            elif found.get("type") not in ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"):
                yield Finding(
                    "pull secret", FAILED, f"secret {secret} is of type {found.get('type')}, not kubernetes.io/dockerconfigjson"
                )
            else:
                yield Finding("pull secret", OK, secret)
        for secret in sorted(self._secrets()):
            if kubectl.get("secret", secret, self._namespace) is None:
                yield Finding("secrets", FAILED, f"there is no secret {secret} in {self._namespace}, which a stage uses")
            else:
                yield Finding("secrets", OK, secret)

    def _secrets(self) -> set[str]:
        stages = (self._wanted.defaults, *self._wanted.stages.values())
        return {s.name for stage in stages for s in stage.secrets.values()} | {
            n for stage in stages for n in stage.secret_files.values()
        }

    def storage(self) -> Iterator[Finding]:
        name, workspace = "storage class", self._wanted.workspace
        classes = {c["metadata"]["name"]: c["metadata"].get("annotations") or {} for c in kubectl.every("storageclass")}
        default = [n for n, a in classes.items() if a.get("storageclass.kubernetes.io/is-default-class") == "true"]
        wanted = workspace.storage_class_name if workspace else None
        if wanted and wanted not in classes:
            yield Finding(name, FAILED, f"no storage class {wanted}; available: {', '.join(classes) or 'none'}")
        elif wanted:
            yield Finding(name, OK, wanted)
        elif default:
            yield Finding(name, OK, f"{default[0]} is the default")
        else:
            outcome = FAILED if workspace else UNKNOWN
            there = ", ".join(classes) or "none"
            message = f"none is the default (available: {there}): a workspace needs kubeflow.workspace.storageClassName"
            yield Finding(name, outcome, message)

    def quota(self) -> Iterator[Finding]:
        quotas = kubectl.every("resourcequota", self._namespace)
        if not quotas:
            yield Finding("quota", OK, f"{self._namespace} has none")
            return
        supplied = bool(kubectl.every("limitrange", self._namespace))
        for quota in quotas:
            name, status = quota["metadata"]["name"], quota.get("status") or {}
            hard, used = status.get("hard") or {}, status.get("used") or {}
            full = [f"{k} {used[k]} of {v}" for k, v in hard.items() if k in used and _amount(used[k]) >= _amount(v)]
            bare = [k for k in ("cpu", "memory") if not getattr(self._wanted.defaults, k) and any(k in h for h in hard)]
            if full:
                yield Finding("quota", FAILED, f"{name} is used up: {', '.join(full)}")
            elif bare and not supplied:
                message = f"{name} rejects pods without {' and '.join(bare)}, and no LimitRange sets it: set kubeflow.defaults"
                yield Finding("quota", FAILED, f"{message}; KFP's own drivers need a LimitRange")
            else:
                yield Finding("quota", OK, f"{name}: " + ", ".join(f"{k} {used.get(k, '0')} of {v}" for k, v in hard.items()))

    def accelerators(self) -> Iterator[Finding]:
        nodes = kubectl.every("node")
        wanted = dict(self._devices())
        if not wanted:
            there = sorted({k for n in nodes for k in n["status"].get("allocatable", {}) if "/" in k})
            yield Finding("accelerators", OK, f"none requested; nodes have: {', '.join(there) or 'none'}")
        for stage, asked in wanted.items():
            selector = {**asked.node_selector, **self._wanted.defaults.node_selector}
            fit = [n["metadata"]["name"] for n in nodes if _fits(n, asked, selector)]
            where = f" with {selector}" if selector else ""
            found = f"{stage}: {asked.resource} {asked.count}{where}"
            if fit:
                yield Finding("accelerators", OK, f"{found} on {', '.join(fit[:3])}")
            else:
                yield Finding("accelerators", FAILED, f"{found}: no node has it now (an autoscaled pool may add one)")

    def _devices(self) -> Iterator[tuple[str, Device]]:
        for stage, resources in self._wanted.stages.items():
            if resources.accelerator:
                yield stage, device(resources.accelerator)
        accelerator = self._config.trainer.accelerator if self._config else None
        if accelerator is not None and accelerator.kind == "gpu" and "training" not in self._wanted.stages:
            yield "training", device(f"gpu:{accelerator.count}")

    def roles(self) -> Iterator[Finding]:
        account = self._wanted.service_account or ("default-editor" if self._client.connection.namespace else "pipeline-runner")
        if kubectl.get("serviceaccount", account, self._namespace) is None:
            yield Finding("roles", FAILED, f"there is no service account {account} in {self._namespace} (infra/kubeflow)")
            return
        asked = [*_ROLES, *(_WORKSPACE_ROLES if self._wanted.workspace else ())]
        if self._config and self._config.trainer.accelerator.nodes > 1:
            asked += _TRAIN_JOB_ROLES
        may = partial(kubectl.may, namespace=self._namespace, account=account)
        lacks = [f"{verb} {resource}" for verb, resource in asked if not may(verb, resource)]
        if lacks:
            yield Finding(
                "roles", FAILED, f"{account} lacks permissions: {', '.join(lacks)} (infra/kubeflow, infra/kubeflow-trainer)"
            )
        else:
            yield Finding("roles", OK, f"{account} has the permissions of a run's pods")


def _admits(policy: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    rules = policy.get("spec", {}).get("ingress") or []
    peers = [p for rule in rules for p in rule.get("from") or [{}]]
    return any(_selects(p.get("namespaceSelector"), labels) for p in peers)


def _selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    # Without a selector: peers that the rule does not restrict, or IP blocks, which are not checked.
    wanted = (selector or {}).get("matchLabels") or {}
    return all(labels.get(k) == v for k, v in wanted.items())


def _label_of(policy: Mapping[str, Any]) -> str:
    for rule in policy["spec"].get("ingress") or []:
        for peer in rule.get("from") or []:
            for key, value in ((peer.get("namespaceSelector") or {}).get("matchLabels") or {}).items():
                return f"{key}={value}"
    return ""


def _fits(node: Mapping[str, Any], asked: Device, selector: Mapping[str, str]) -> bool:
    labels = node["metadata"].get("labels") or {}
    return _amount(node["status"].get("allocatable", {}).get(asked.resource, "0")) >= asked.count and all(
        labels.get(k) == v for k, v in selector.items()
    )


_UNITS = {"m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def _amount(quantity: str) -> float:
    found = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(quantity))
    return float(found[1]) * _UNITS.get(found[2], 1.0) if found else 0.0
