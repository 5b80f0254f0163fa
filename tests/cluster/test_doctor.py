"""`switchyard doctor` against the stand-in for KFP. No Kubernetes can be had here: `kubectl` is a script that reads files."""

import json
import os
import stat

import pytest

from switchyard.pipelines.commands.doctor import doctor
from tests.command import BREAST_CANCER, free_port

SCRIPT = """#!/bin/sh
# kubectl --request-timeout=10s VERB ARGUMENTS: the answer lies under the arguments' names.
name=$(echo "$*" | sed 's/^--request-timeout=10s //; s/ -o json//; s/[^a-zA-Z0-9.=-]/_/g')
if [ -e "{folder}/$name" ]; then cat "{folder}/$name"; exit 0; fi
case "$*" in
  *"auth can-i"*) echo yes ;;
  *" get serviceaccount "*) echo '{{}}' ;;
  *) echo 'Error from server (NotFound): not found' >&2; exit 1 ;;
esac
"""
CLASS = {"metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}
PLUGIN = {"mlflow": {"endpoint": "http://mlflow.mlflow:5000", "settings": {"injectUserEnvVars": True}}}
POLICY = {
    "metadata": {"name": "mlflow"},
    "spec": {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"switchyard/mlflow": "allowed"}}}]}]},
}
ALLOWED = {"metadata": {"labels": {"switchyard/mlflow": "allowed"}}}


class Cluster:
    def __init__(self, folder):
        self._folder = folder

    def put(self, command, answer):
        name = "".join(c if c.isalnum() or c in ".=-" else "_" for c in command)
        (self._folder / name).write_text(answer if isinstance(answer, str) else json.dumps(answer))

    def lists(self, command, *items):
        self.put(f"get {command}", {"items": list(items)})


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster that is fit, as far as kubectl says."""
    (tmp_path / "bin").mkdir()
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.write_text(SCRIPT.format(folder=tmp_path))
    kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")
    found = Cluster(tmp_path)
    found.put("config current-context", "mine\n")
    found.put("get namespace kubeflow", ALLOWED)
    exec_ = "exec -n kubeflow deploy/ml-pipeline -c ml-pipeline-api-server -- cat /config/config.json"
    found.put(exec_, {"plugins": PLUGIN})
    found.exec = exec_
    found.put("get service mlflow -n mlflow", {})
    found.put("get endpoints mlflow -n mlflow", {"subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]})
    found.lists("networkpolicy -n mlflow", POLICY)
    found.lists("storageclass", CLASS)
    found.lists("resourcequota -n kubeflow")
    found.lists("limitrange -n kubeflow")
    found.lists("node", {"metadata": {"name": "n1"}, "status": {"allocatable": {"nvidia.com/gpu": "1", "cpu": "8"}}})
    return found


@pytest.fixture
def look(kfp, capsys):
    """Returns a function: settings of the example -> exit code and, by check, what came of it and what was said."""
    _, client = kfp

    def run(*settings):
        code = doctor(client.connection, BREAST_CANCER, settings, None, as_json=True)
        rows = json.loads(capsys.readouterr().out)
        return code, {r["check"]: (r["outcome"], r["message"]) for r in rows}

    return run


@pytest.mark.core
def test_a_suitable_cluster_is_reported_as_ready(cluster, look):
    code, found = look("kubeflow.workspace=1Gi")
    assert code == 0
    assert {c: o for c, (o, _) in found.items() if o != "ok"} == {"MLflow (this machine)": "not checked", "image": "not checked"}
    assert found["version"] == ("ok", "KFP 2.17.0")
    assert found["MLflow (cluster)"][1].startswith("service mlflow in mlflow is ready and admits kubeflow")
    assert "nvidia.com/gpu" in found["accelerators"][1]


@pytest.mark.core
def test_a_kfp_without_the_security_fixes_must_be_upgraded(cluster, kfp, look):
    kfp[0].version = "2.16.2"
    code, found = look()
    assert (code, found["version"][0]) == (1, "failed")
    assert "upgrade to 2.17.0" in found["version"][1]


def test_a_version_that_is_not_a_number_is_not_checked(cluster, kfp, look):
    kfp[0].version = "master"
    assert look()[1]["version"][0] == "not checked"


@pytest.mark.core
def test_without_kubectl_unchecked_items_are_reported_with_the_reason(look, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, found = look()
    assert code == 0
    assert found["roles"] == found["quota"] == ("not checked", "kubectl is not on the PATH")
    assert found["version"][0] == "ok"


def test_an_unreachable_cluster_is_not_checked(cluster, look, tmp_path):
    (tmp_path / "get_namespace_kubeflow").unlink()
    (tmp_path / "bin" / "kubectl").write_text("#!/bin/sh\necho 'Unable to connect to the server: refused' >&2\nexit 1\n")
    _, found = look()
    assert found["kubectl"] == ("not checked", "kubectl: Unable to connect to the server: refused")


@pytest.mark.parametrize(
    ("command", "answer", "settings", "check", "said"),
    [
        ("get storageclass", {"items": []}, ["kubeflow.workspace=1Gi"], "storage class", "kubeflow.workspace.storageClassName"),
        (
            "get storageclass",
            {"items": [CLASS]},
            ['kubeflow.workspace={"size": "1Gi", "storageClassName": "fast"}'],
            "storage class",
            "no storage class fast; available: standard",
        ),
        (
            "get resourcequota -n kubeflow",
            {"items": [{"metadata": {"name": "q"}, "status": {"hard": {"pods": "20"}, "used": {"pods": "20"}}}]},
            [],
            "quota",
            "q is used up: pods 20 of 20",
        ),
        (
            "get serviceaccount x",
            "",
            ['kubeflow.stages={"training": {"accelerator": "gpu:2"}}'],
            "accelerators",
            "training: nvidia.com/gpu 2: no node has it",
        ),
        ("get x", "", ['kubeflow.image_pull_secrets=["registry"]'], "pull secret", "there is no secret registry in kubeflow"),
        (
            "get secret registry -n kubeflow",
            {"type": "Opaque"},
            ['kubeflow.image_pull_secrets=["registry"]'],
            "pull secret",
            "is of type Opaque",
        ),
        ("get x", "", ['kubeflow.defaults.secrets={"WORD": "mine/word"}'], "secrets", "there is no secret mine"),
        (
            "auth can-i create workflowtaskresults.argoproj.io -n kubeflow --as=system:serviceaccount:kubeflow:runner",
            "no\n",
            ["kubeflow.service_account=runner"],
            "roles",
            "runner lacks permissions: create workflowtaskresults.argoproj.io",
        ),
        ("get endpoints mlflow -n mlflow", {}, [], "MLflow (cluster)", "has no ready pod"),
        (
            "get namespace kubeflow",
            {"metadata": {}},
            [],
            "MLflow (cluster)",
            "kubectl label namespace kubeflow switchyard/mlflow=allowed",
        ),
        (
            "get x",
            "",
            ["kubeflow.defaults.environment.MLFLOW_TRACKING_URI=http://127.0.0.1:5000"],
            "MLflow (cluster)",
            "127.0.0.1 would be the pod itself",
        ),
        (
            "get x",
            "",
            ["kubeflow.defaults.environment.MLFLOW_TRACKING_URI=http://ml.mlflow:5000"],
            "MLflow (cluster)",
            "no service ml",
        ),
        (
            "exec -n kubeflow deploy/ml-pipeline -c ml-pipeline-api-server -- cat /config/config.json",
            {"plugins": {"mlflow": {"endpoint": "http://mlflow.mlflow:5000"}}},
            [],
            "MLflow plugin",
            "without injectUserEnvVars",
        ),
    ],
)
def test_problems_of_the_first_run_are_reported_with_the_fix(cluster, look, command, answer, settings, check, said):
    cluster.put(command, answer)
    code, found = look(*settings)
    assert (code, found[check][0]) == (1, "failed"), found
    assert said in found[check][1]


def test_a_quota_that_refuses_pods_without_limits_is_named(cluster, look):
    quota = {"metadata": {"name": "q"}, "status": {"hard": {"limits.memory": "10Gi"}, "used": {"limits.memory": "1Gi"}}}
    cluster.lists("resourcequota -n kubeflow", quota)
    cluster.lists("limitrange -n kubeflow")
    assert "rejects pods without memory" in look()[1]["quota"][1]
    cluster.lists("limitrange -n kubeflow", {})
    assert look()[1]["quota"] == ("ok", "q: limits.memory 1Gi of 10Gi")


def test_unchecked_roles_are_reported_without_the_right_to_impersonate(cluster, look, tmp_path):
    script = (tmp_path / "bin" / "kubectl").read_text()
    denied = 'echo "error: users \\"me\\" is forbidden: cannot impersonate resource \\"serviceaccounts\\"" >&2; exit 1'
    (tmp_path / "bin" / "kubectl").write_text(script.replace("echo yes", denied))
    assert look()[1]["roles"][0] == "not checked"


def test_a_missing_role_is_named_even_if_kubectl_prints_warnings(cluster, look, tmp_path):
    script = (tmp_path / "bin" / "kubectl").read_text()
    warned = 'echo "Warning: the server doesn\'t have a resource type" >&2; echo no; exit 1'
    (tmp_path / "bin" / "kubectl").write_text(script.replace("echo yes", warned))
    outcome, said = look()[1]["roles"]
    assert (outcome, "pipeline-runner lacks permissions: get pods" in said) == ("failed", True)


def test_an_unreachable_host_or_an_invalid_pipeline_is_a_user_error(warm, kfp):
    assert warm("doctor", "--host", f"http://127.0.0.1:{free_port()}").code == 2
    host = kfp[1].host
    assert warm("doctor", BREAST_CANCER, "--host", host, "--set", "kubeflow.nothing=1").code == 2
    assert "give PIPELINE" in warm("doctor", "--host", host, "--set", "name=x").stderr


def test_doctor_prints_a_table(kfp, capsys):
    doctor(kfp[1].connection, None, (), None, as_json=False)
    assert "KFP 2.17.0" in capsys.readouterr().out
