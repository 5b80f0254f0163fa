"""What `switchyard deploy --target kserve` writes; its pod is checked against Kubernetes' own schemas."""

import re

import kubernetes_validate
import pytest
import yaml

from switchyard.components.errors import UserError
from switchyard.pipelines.config.kubeflow import Secret, StageResources
from switchyard.pipelines.kserve.manifests import Deployment, inference_service, service_name, signer_map

FROM_STORE = {
    "model": "breast_cancer", "version": "3", "location": "s3://models/1/abc", "tracking_uri": None, "name": "breast-cancer",
    "namespace": "serving", "image": "registry.example.org/switchyard:0.1.0", "service_account": "model-reader",
    "resources": StageResources(),
}  # fmt: skip


def made(**changes):
    return inference_service(Deployment(**{**FROM_STORE, **changes}))


def container(manifest):
    [found] = manifest["spec"]["predictor"]["containers"]
    return found


def environment(manifest):
    return {e["name"]: e.get("value") or e["valueFrom"]["secretKeyRef"] for e in container(manifest)["env"]}


@pytest.mark.parametrize("version", ["1.29.0", kubernetes_validate.latest_version()])
def test_the_pod_fits_kubernetes_schema(version):
    resources = StageResources(
        cpu="4", memory="16Gi", accelerator="gpu", node_selector={"pool": "gpu"}, secrets={"AWS_SECRET_ACCESS_KEY": "store/key"},
        tolerations=[{"key": "dedicated", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}],
    )  # fmt: skip
    manifest = made(resources=resources, canary=10, concurrency=32, token=Secret(name="clients", key="token"))
    predictor = dict(manifest["spec"]["predictor"])
    # The fields that KServe has beside those of a pod.
    ours = {k: predictor.pop(k) for k in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "canaryTrafficPercent")}
    assert ours == {
        "minReplicas": 1,
        "maxReplicas": 3,
        "scaleMetric": "concurrency",
        "scaleTarget": 32,
        "canaryTrafficPercent": 10,
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": manifest["metadata"], "spec": predictor}
    kubernetes_validate.validate(yaml.safe_load(yaml.safe_dump(pod)), version, strict=True)
    assert container(manifest)["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    assert environment(manifest)["SWITCHYARD_SERVE_TOKEN"] == {"name": "clients", "key": "token"}
    assert environment(manifest)["AWS_SECRET_ACCESS_KEY"] == {"name": "store", "key": "key"}


def test_the_public_key_is_mounted_where_the_server_looks_for_it():
    manifest = made(digest="0" * 64, signer="-----BEGIN PUBLIC KEY-----\n")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": manifest["metadata"], "spec": manifest["spec"]["predictor"]}
    pod["spec"] = {k: v for k, v in pod["spec"].items() if k not in ("minReplicas", "maxReplicas")}
    signer = signer_map(Deployment(**FROM_STORE, signer="-----BEGIN PUBLIC KEY-----\n"))
    for document in (pod, signer):
        kubernetes_validate.validate(yaml.safe_load(yaml.safe_dump(document)), kubernetes_validate.latest_version(), strict=True)
    assert pod["spec"]["volumes"][1] == {"name": "signer", "configMap": {"name": signer["metadata"]["name"]}}
    expected = ["/mnt/models", "--digest", "0" * 64, "--verify", "/etc/switchyard/signer/key.pem"]
    assert container(manifest)["args"][:5] == expected
    other = signer_map(Deployment(**FROM_STORE, signer="another"))
    assert other["metadata"]["name"] != signer["metadata"]["name"]


def test_the_model_comes_from_the_object_store():
    manifest = made()
    assert environment(manifest) == {"STORAGE_URI": "s3://models/1/abc"}
    assert container(manifest)["args"][0] == "/mnt/models"


def test_the_model_comes_from_the_registry_if_it_is_stored_there():
    manifest = made(location="mlflow-artifacts:/1/abc", tracking_uri="http://mlflow.mlflow:5000")
    assert environment(manifest) == {"MLFLOW_TRACKING_URI": "http://mlflow.mlflow:5000"}
    assert container(manifest)["args"][0] == "breast_cancer@3"


def test_a_model_that_the_cluster_cannot_reach_is_refused():
    with pytest.raises(UserError, match="--cluster-tracking-uri"):
        made(location="/home/me/mlflow/1")


def test_serving_on_a_tpu_is_refused():
    with pytest.raises(UserError, match="TPUs are not supported"):
        made(resources=StageResources(accelerator="tpu:v5e:2x2"))


def test_the_container_has_no_privileges():
    security = container(made())["securityContext"]
    assert security == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert made()["spec"]["predictor"]["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("breast_cancer", "breast-cancer"),
        ("Big Model!", "big-model"),
        ("___", "model"),
        ("2024 churn", "model-2024-churn"),
        ("é", "model"),
        (f"{'a' * 39} b", "a" * 39),  # cut at its dash
        ("$(reboot)\n`x`", "reboot-x"),
    ],
)
def test_a_models_name_becomes_a_name_that_kserve_takes(model, name):
    assert service_name(model) == name
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name)
