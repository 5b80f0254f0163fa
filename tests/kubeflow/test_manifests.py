"""Every manifest of infra/, rendered by kustomize and checked against Kubernetes' own schemas; and what a reviewer looks for."""

import json
import re
import subprocess

import kubernetes_validate
import pytest
import yaml

from tests.command import REPOSITORY

pytestmark = pytest.mark.core
INFRA = REPOSITORY / "infra"
ENTRIES = ["mlflow/overlays/in-cluster", "mlflow/overlays/cloud", "kubeflow", "serving"]
VERSIONS = ["1.29.0", kubernetes_validate.latest_version()]


def rendered(entry):
    done = subprocess.run(["kubectl", "kustomize", INFRA / entry], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def containers(document):
    template = document.get("spec", {}).get("template", {}).get("spec", {})
    return [(c, True) for c in template.get("initContainers", [])] + [(c, False) for c in template.get("containers", [])]


@pytest.mark.parametrize("entry", ENTRIES)
def test_manifests_fit_kubernetes_schemas(entry):
    documents = rendered(entry)
    assert documents
    for document in documents:
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def test_every_manifest_is_rendered_by_an_entry():
    named = {path.parent for path in INFRA.rglob("kustomization.yaml")}
    for path in INFRA.rglob("*.yaml"):
        if path.name != "kustomization.yaml" and path.parent in named:
            listed = (path.parent / "kustomization.yaml").read_text()
            assert path.name in listed or path.name == "mlflow-plugin-mount.yaml", f"{path} is in no kustomization"


@pytest.mark.parametrize("entry", ENTRIES)
def test_containers_are_locked_down(entry):
    for document in rendered(entry):
        for container, initial in containers(document):
            where = f"{entry} {document['metadata']['name']} {container['name']}"
            assert re.search(r":[^:]*\d", container["image"]), f"{where}: an image without a version"
            assert "memory" in container["resources"]["limits"], where
            assert "memory" in container["resources"]["requests"], where
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            assert document["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True, where
            if not initial:
                assert {"readinessProbe", "livenessProbe"} <= container.keys(), where


@pytest.mark.parametrize("entry", ENTRIES)
def test_secrets_are_only_referenced(entry):
    for document in rendered(entry):
        assert document["kind"] != "Secret", f"{entry}: a secret in a file"
        for container, _ in containers(document):
            for variable in container.get("env", []):
                if re.search("PASSWORD|TOKEN|SECRET|KEY|STORE_URI", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"], variable["name"]


@pytest.mark.parametrize("entry", ENTRIES[:2])
def test_workloads_have_a_network_policy(entry):
    documents = rendered(entry)
    policies = [d["spec"]["podSelector"]["matchLabels"] for d in documents if d["kind"] == "NetworkPolicy"]
    for document in documents:
        if document["kind"] in ("Deployment", "StatefulSet"):
            labels = document["spec"]["template"]["metadata"]["labels"]
            assert any(p.items() <= labels.items() for p in policies), document["metadata"]["name"]


def test_the_overlay_reaches_the_server():
    documents = {(d["kind"], re.sub(r"-[a-z0-9]{10}$", "", d["metadata"]["name"])): d for d in rendered(ENTRIES[0])}
    settings = documents["ConfigMap", "mlflow-settings"]
    assert settings["data"]["s3-endpoint"] == "http://minio-service.kubeflow:9000"
    server = documents["Deployment", "mlflow"]["spec"]["template"]["spec"]["containers"][0]
    names = {e["valueFrom"]["configMapKeyRef"]["name"] for e in server["env"] if "configMapKeyRef" in e.get("valueFrom", {})}
    assert names == {settings["metadata"]["name"]}, "kustomize renames it when it changes"


def test_kfp_reads_the_plugins_settings():
    # backend/src/common/plugins/mlflow/config.go, KFP 2.17
    plugin = json.loads((INFRA / "kubeflow" / "mlflow-plugin.json").read_text())["plugins"]["mlflow"]
    assert plugin.keys() <= {"endpoint", "timeout", "tls", "settings"}
    assert plugin["settings"]["injectUserEnvVars"] is True, "or tasks are not told their MLflow run"
    assert plugin["endpoint"].endswith(":5000")
    patch = yaml.safe_load((INFRA / "kubeflow" / "mlflow-plugin-mount.yaml").read_text())
    mount = patch["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]
    assert mount["mountPath"] == "/config/config.json"
