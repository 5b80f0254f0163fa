"""What `switchyard deploy` makes of a cluster's KServe. No cluster can be had here: `kubectl` is a script that reads files."""

import json
import os
import stat

import pytest

from switchyard.components.errors import StageError, UserError
from switchyard.pipelines.commands.deploy import kserve_for, predictor_before
from switchyard.pipelines.kserve.cluster import await_ready, look
from switchyard.pipelines.kserve.manifests import Deployment, inference_service
from tests.unit.test_kserve_manifests import FROM_STORE

SCRIPT = """#!/bin/sh
# kubectl --request-timeout=10s get KIND NAME -o json -n NAMESPACE
cat "{folder}/$3.$4.$8.json" 2>/dev/null || exit 1
"""
BEFORE = {"minReplicas": 2, "containers": [{"name": "kserve-container", "args": ["breast_cancer@2"]}]}
ASKED = {"mode": None, "namespace": "serving", "canary": None, "concurrency": None, "min_replicas": 1, "apply": False}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Returns a function that says what is on the cluster."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(SCRIPT.format(folder=tmp_path))
    kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def put(kind, name, namespace, content):
        (tmp_path / f"{kind}.{name}.{namespace}.json").write_text(json.dumps(content))

    def set_up(*, default=None, version="v0.15.2", service=None):
        image = {"containers": [{"image": f"kserve/kserve-controller:{version}"}]}
        put("deployment", "kserve-controller-manager", "kserve", {"spec": {"template": {"spec": image}}})
        if default:
            deploy = json.dumps({"defaultDeploymentMode": default})
            put("configmap", "inferenceservice-config", "kserve", {"data": {"deploy": deploy}})
        if service:
            put("inferenceservice.serving.kserve.io", "m", "serving", service)

    return set_up


def asked(**changes):
    return {**ASKED, **changes}


@pytest.mark.parametrize(
    ("default", "live", "given", "mode"),
    [
        ("RawDeployment", None, None, "standard"),
        ("Knative", None, None, "knative"),
        ("Serverless", "RawDeployment", None, "standard"),
        ("Serverless", "Standard", "knative", "knative"),
        (None, None, None, None),
    ],
)
def test_the_mode_comes_from_the_option_the_service_or_the_configuration(cluster, default, live, given, mode):
    cluster(default=default, service={"status": {"deploymentMode": live}} if live else None)
    assert look("m", "serving", given).mode == mode


def test_percentages_are_set_by_knative_in_knative_mode(cluster):
    cluster(default="Serverless", service={"status": {"deploymentMode": "Serverless"}, "spec": {"predictor": BEFORE}})
    options = asked(canary=10)
    kserve = kserve_for("m", options)
    assert predictor_before("m", kserve, options) is None
    manifest = inference_service(Deployment(**FROM_STORE, canary=10, concurrency=32))
    assert manifest["spec"]["predictor"]["canaryTrafficPercent"] == 10
    assert manifest["spec"]["predictor"]["scaleMetric"] == "concurrency"


def test_a_canary_in_standard_mode_stands_beside_the_version_before_from_kserve_0_20_on(cluster):
    cluster(version="v0.20.1", service={"status": {"deploymentMode": "Standard"}, "spec": {"predictor": BEFORE}})
    options = asked(canary=10)
    before = predictor_before("m", kserve_for("m", options), options)
    spec = inference_service(Deployment(**FROM_STORE, canary=10, before=before))["spec"]
    assert spec["predictor"] == BEFORE, "the version before stays as it is"
    [canary] = spec["canary"]
    assert canary["trafficPercent"] == 10
    assert canary["predictor"]["name"] == "v3"
    assert canary["predictor"]["containers"][0]["name"] == "kserve-container"
    assert not {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "canaryTrafficPercent"} & canary["predictor"].keys()


def test_a_canary_that_would_get_every_request_is_refused_with_the_alternative(cluster):
    cluster(service={"status": {"deploymentMode": "RawDeployment"}, "spec": {"predictor": BEFORE}})
    options = asked(canary=10)
    with pytest.raises(UserError, match=r"--canary: KServe 0\.15 .* every request .* switchyard serve NAME@champion --canary 10"):
        predictor_before("m", kserve_for("m", options), options)


def test_a_canary_without_a_previous_version_is_refused(cluster):
    cluster(default="Standard", version="v0.20.0")
    options = asked(canary=10)
    with pytest.raises(UserError, match="no InferenceService m in namespace serving"):
        predictor_before("m", kserve_for("m", options), options)


@pytest.mark.parametrize(("given", "option"), [({"concurrency": 8}, "--concurrency"), ({"min_replicas": 0}, "--min-replicas 0")])
def test_options_that_the_mode_ignores_are_refused(cluster, given, option):
    cluster(default="RawDeployment")
    with pytest.raises(UserError, match=f"{option}: KServe's standard mode ignores it"):
        kserve_for("m", asked(**given))
    cluster(default="Serverless")
    assert kserve_for("m", asked(**given)).mode == "knative"


def test_an_unknown_mode_must_be_given_only_where_it_matters(cluster):
    with pytest.raises(UserError, match=r"--canary: .*--mode standard or --mode knative"):
        kserve_for("m", asked(canary=10))
    assert kserve_for("m", asked()).mode is None
    assert kserve_for("m", asked(canary=10, mode="knative")).mode == "knative"
    assert "scaleMetric" not in inference_service(Deployment(**FROM_STORE))["spec"]["predictor"]


READY = [{"type": "Ready", "status": "True"}]


def service(transition, failure=None, *, conditions=READY, observed=2):
    model = {"transitionStatus": transition, **({"lastFailureInfo": failure} if failure else {})}
    return {
        "metadata": {"generation": 2},
        "status": {"observedGeneration": observed, "conditions": conditions, "modelStatus": model},
    }


def test_a_failing_new_pod_is_an_error_although_the_previous_version_is_ready(cluster):
    cluster(service=service("BlockedByFailedLoad", {"reason": "ModelLoadFailed", "message": "digest differs", "exitCode": 2}))
    with pytest.raises(StageError, match=r"the new version fails \(ModelLoadFailed, digest differs, exit code 2\)"):
        await_ready("m", "serving", seconds=1, poll=0.05)


@pytest.mark.parametrize(
    "state",
    [
        service("InProgress"),
        service("InProgress", {"message": "of the version before"}),
        service("UpToDate", observed=1),
        service("UpToDate", conditions=[]),
    ],
)
def test_a_version_without_pods_is_not_ready(cluster, state):
    cluster(service=state)
    with pytest.raises(StageError, match="not ready after 0 s"):
        await_ready("m", "serving", seconds=0.2, poll=0.05)


def test_an_old_failure_does_not_stop_a_version_that_serves(cluster):
    cluster(service=service("UpToDate", {"reason": "ModelLoadFailed", "message": "of the version before"}))
    await_ready("m", "serving", seconds=1, poll=0.05)
