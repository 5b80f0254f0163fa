"""`submit` and `runs` against a server that executes what it receives, with a real MLflow server beside it."""

import json
import subprocess
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.cluster.submitting import SHORT, kfp_server, nested, wait_for_end
from tests.command import ANEW, BREAST_CANCER, STAGES, free_port

# A run's name and its data gate's metrics depend on earlier runs of the experiment.
ALONE = ("--wait", "--set", "tracking.experiment=first")


@pytest.fixture(scope="module")
def first(submit):
    return submit(*ALONE)


def test_a_run_is_followed_to_its_end(first):
    found, said = first
    assert found["status"] == "blessed"
    assert found["state"] == "SUCCEEDED"
    assert set(STAGES) <= set(found["stages"])
    assert found["url"] in said
    assert found["mlflow_url"] in said
    assert "training: ran" in said


def test_a_submitted_run_is_tracked_like_a_local_one(first, mlflow, warm, tmp_path):
    remote, _ = first
    done = warm.run(
        BREAST_CANCER,
        tmp_path,
        "--set",
        f"tracking.uri={mlflow}",
        "--set",
        "tracking.experiment=local",
        "--set",
        "serving.model_name=other",
        *SHORT,
    )
    local = json.loads(done.stdout.splitlines()[-1])
    client = MlflowClient(tracking_uri=mlflow)
    there, here = client.get_run(remote["mlflow_run_id"]), client.get_run(local["mlflow_run_id"])
    assert there.info.run_name == here.info.run_name
    assert there.info.status == here.info.status == "FINISHED"
    # What was set on the command line is recorded, and each of the two had something to set for itself.
    set_for_one = {"serving.model_name", "tracking.experiment", "kubeflow.defaults.environment.MLFLOW_TRACKING_URI"}
    params = [{k: v for k, v in run.data.params.items() if k not in set_for_one} for run in (there, here)]
    assert params[0] == params[1]
    assert len(params[0]) > 50
    assert there.data.metrics == pytest.approx(here.data.metrics, abs=1e-6)
    own = {"switchyard.kfp_run_id"}
    # Where it lies, and what is compared with whom, differs; what there is does not.
    assert set(there.data.tags) - own == set(here.data.tags)
    runs = {r.info.run_name: r for r in nested(mlflow, remote["mlflow_run_id"])}
    local_runs = {r.info.run_name: r for r in nested(mlflow, local["mlflow_run_id"])}
    assert sorted(runs) == sorted(local_runs) == sorted(STAGES)
    for stage in STAGES:
        assert runs[stage].info.status == "FINISHED"
        system = {m for m in runs[stage].data.metrics if m.startswith("system/")}
        assert set(runs[stage].data.params) == set(local_runs[stage].data.params), stage
        assert set(runs[stage].data.metrics) - system == {
            m for m in local_runs[stage].data.metrics if not m.startswith("system/")
        }, stage
        assert set(runs[stage].data.tags) == set(local_runs[stage].data.tags), stage
        files = [{f.path for f in client.list_artifacts(r[stage].info.run_id)} for r in (runs, local_runs)]
        assert files[0] == files[1], stage


def test_a_second_identical_run_is_cached_and_duplicates_nothing(first, submit, mlflow):
    found, _ = submit(*ALONE)
    runs = {r.info.run_name: r for r in nested(mlflow, found["mlflow_run_id"])}
    assert len(runs) == len(nested(mlflow, found["mlflow_run_id"]))
    status = {name: r.data.tags["switchyard.status"] for name, r in runs.items()}
    # The backend runs no task for what it has: the last task says whose work it is.
    # The models' servers share a task with what runs every time.
    assert {n for n, s in status.items() if s == "ran"} == ANEW | {"infra_validation"}
    [trained] = [r for r in nested(mlflow, first[0]["mlflow_run_id"]) if r.info.run_name == "training"]
    assert runs["training"].data.tags["switchyard.cached_from_run"] == trained.info.run_id
    client = MlflowClient(tracking_uri=mlflow)
    curves = [client.get_metric_history(r.info.run_id, "val_loss") for r in (runs["training"], trained)]
    assert [(p.step, p.value) for p in curves[0]] == [(p.step, p.value) for p in curves[1]]
    assert client.get_run(found["mlflow_run_id"]).info.status == "FINISHED"


def test_bad_data_stops_the_run_and_a_retry_duplicates_nothing(submit, mlflow, tmp_path, warm, host):
    rows = (BREAST_CANCER.parent / "data.csv").read_text().replace("mean_radius", "radius_mean", 1)
    if "radius_mean" not in rows:
        header, _, rest = rows.partition("\n")
        columns = header.split(",")
        rows = ",".join(["renamed", *columns[1:]]) + "\n" + rest
    (tmp_path / "data.csv").write_text(rows)
    found, _ = submit("--wait", "--set", f"data.path={tmp_path / 'data.csv'}", expect=3)
    assert found["status"] == "stopped_by_data_gate"
    assert "mean_radius" in found["error"]
    before = sorted(r.info.run_name for r in nested(mlflow, found["mlflow_run_id"]))
    assert "training" not in before
    done = warm("runs", "retry", found["run_id"], "--host", host)
    assert done.code == 0, done.stderr
    wait_for_end(warm, host, found["run_id"])
    assert sorted(r.info.run_name for r in nested(mlflow, found["mlflow_run_id"])) == before
    shown = json.loads(warm("runs", "show", found["run_id"], "--host", host, "--json").stdout)
    assert shown["state"] == "FAILED"
    gate = next(t for t in shown["tasks"] if t["name"] == "data-gate")
    assert "data gate" in gate["error"] or "anomal" in gate["error"] or "column" in gate["error"]


def test_tasks_attach_to_the_runs_of_kfps_plugin(submit, mlflow, first):
    found, _ = submit("--wait", "--set", "tracking.experiment=plugin")
    assert found["status"] == "blessed", "MLflow is asked in whose run KFP's plugin made"
    client = MlflowClient(tracking_uri=mlflow)
    parent = client.get_run(found["mlflow_run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.params["trainer"] == "tensorflow"
    assert client.search_runs([parent.info.experiment_id], f"tags.`switchyard.kfp_run_id` = '{found['run_id']}'") == []
    runs = {r.info.run_name: r for r in nested(mlflow, found["mlflow_run_id"])}
    # The plugin makes a run for every task, those that were cached and the driver too.
    assert "evaluation" in runs
    assert "data_gate" in runs, "the stage's own name, not KFP's data-gate"
    assert runs["evaluation"].data.metrics["auc"] > 0.5
    assert len(runs) == len(nested(mlflow, found["mlflow_run_id"]))


def test_a_schedule_starts_runs_that_succeed_and_can_be_paused_and_deleted(submit, host, warm, mlflow):
    found, said = submit("--schedule", "0 3 * * *", "--max-concurrency", "2", "--set", "kubeflow.pipeline_root=s3://bucket/root")
    made = found["recurring_run_id"]
    assert "time zone of KFP's controller: UTC" in said
    [listed] = json.loads(warm("runs", "schedules", "list", "--host", host, "--json").stdout)
    assert (listed["cron"], listed["catchup"], listed["max_concurrency"]) == ("0 0 3 * * *", False, "2")
    run_id = tick(host, made)
    assert wait_for_end(warm, host, run_id)["state"] == "SUCCEEDED"
    client = MlflowClient(tracking_uri=mlflow)
    experiment = client.get_experiment_by_name("breast_cancer").experiment_id
    [parent] = client.search_runs([experiment], f"tags.`switchyard.kfp_run_id` = '{run_id}'")
    assert parent.data.params["trainer"] == "tensorflow", "the first task that ran has told MLflow what submit could not"
    assert parent.info.status == "FINISHED"
    shown = {r["run_id"]: r for r in json.loads(warm("runs", "list", "--host", host, "--json").stdout)}
    assert shown[run_id]["schedule"] == made
    assert warm("runs", "schedules", "pause", made, "--host", host).code == 0
    assert tick(host, made) is None
    assert warm("runs", "schedules", "delete", made, "--host", host).code == 0
    assert "no recurring runs" in warm("runs", "schedules", "list", "--host", host).stdout


def tick(host, recurring_run):
    request = urllib.request.Request(f"{host}/stand-in/recurringruns/{recurring_run}/tick", method="POST")
    return json.loads(urllib.request.urlopen(request).read())["run_id"]


def test_runs_are_listed_shown_and_read(first, warm, host):
    run_id = first[0]["run_id"]
    listed = json.loads(warm("runs", "list", "--host", host, "--json").stdout)
    assert run_id in [r["run_id"] for r in listed]
    assert run_id in warm("runs", "list", "--host", host).stdout
    shown = warm("runs", "show", run_id, "--host", host).stdout
    assert "training" in shown
    assert "SUCCEEDED" in shown
    log = warm("runs", "logs", run_id, "training", "--host", host)
    assert log.code == 0, log.stderr
    assert "Got executor_input" in log.stdout
    assert warm("runs", "logs", run_id, "nothing", "--host", host).code == 2
    ended = warm("runs", "terminate", run_id, "--host", host)
    assert ended.code == 0, ended.stderr


@pytest.mark.parametrize(
    ("path", "more", "said"),
    [
        ("/page", {}, "the path is wrong (on Kubeflow it is .../pipeline) or a login"),
        ("/old", {}, "KFP is older than version 2"),
        ("/guarded", {}, "rejects the credentials (401)"),
        ("/guarded", {"SWITCHYARD_KFP_TOKEN": "wrong"}, "permission denied (403: User is not authorized)"),
    ],
)
def test_servers_that_refuse_or_are_not_kfp_are_reported_as_such(warm, host, path, more, said):
    done = warm("runs", "list", "--host", host + path, env=more)
    assert done.code == 2
    assert said in done.stderr


@pytest.mark.parametrize("more", [{"SWITCHYARD_KFP_TOKEN": "right"}, {"SWITCHYARD_KFP_COOKIE": "session=right"}])
def test_token_and_cookie_authenticate(warm, host, more):
    done = warm("runs", "list", "--host", f"{host}/guarded", env=more)
    assert done.code == 0, done.stderr


def test_a_token_file_authenticates(warm, host, tmp_path):
    (tmp_path / "token").write_text("right\n")
    assert warm("runs", "list", "--host", f"{host}/guarded", "--token-file", tmp_path / "token").code == 0
    missing = warm("runs", "list", "--host", host, "--token-file", tmp_path / "nothing")
    assert missing.code == 2
    assert "no such file" in missing.stderr


def test_an_unknown_run_is_an_error_that_names_it(warm, host):
    done = warm("runs", "show", "nothing", "--host", host)
    assert done.code == 2
    assert "unknown run nothing" in done.stderr


@pytest.mark.core
def test_an_unreachable_server_is_an_error(warm):
    done = warm("submit", BREAST_CANCER, "--host", f"http://127.0.0.1:{free_port()}")
    assert done.code == 2
    assert "does not answer" in done.stderr


@pytest.mark.core
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "kubeflow.example.org"], "a URL with its scheme"),
        (["--host", "http://x", "--schedule", "every day"], "five fields"),
        (["--host", "http://x", "--schedule", "0 3 * * *", "--wait"], "--wait follows one run"),
        (["--host", "http://x", "--catchup"], "take effect only with --schedule"),
        (["--host", "http://x", "--max-concurrency", "2"], "take effect only with --schedule"),
        (["--host", "http://x", "--heal", "1"], "--heal and --stuck take effect only with --wait"),
        (["--host", "http://x", "--wait", "--stuck", "10 minutes"], "'10 minutes' is no duration; give 90s, 10m, 1h"),
        (["--host", "http://x", "--stuck", "10m"], "--heal and --stuck take effect only with --wait"),
        ([], "--host"),
    ],
)
def test_invalid_arguments_are_refused(warm, arguments, said):
    done = warm("submit", BREAST_CANCER, *arguments)
    assert done.code == 2
    assert said in done.stderr


def test_a_self_signed_certificate_needs_its_ca(warm, tmp_path):
    pem = tmp_path / "own.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    with open(pem, "a") as file:
        file.write((tmp_path / "cert.pem").read_text())
    with kfp_server(tmp_path / "server", "", "--certificate", pem, scheme="https") as host:
        refused = warm("runs", "list", "--host", host)
        assert "--ca-cert" in refused.stderr
        assert warm("runs", "list", "--host", host, "--ca-cert", tmp_path / "cert.pem").code == 0
        assert warm("runs", "list", "--host", host, "--insecure").code == 0


@pytest.mark.core
def test_a_password_is_never_compiled_into_the_pipeline(warm, tmp_path):
    done = warm("compile", BREAST_CANCER, "-o", tmp_path / "x.yaml", "--set", "tracking.uri=http://me:secret@mlflow:5000")
    assert done.code == 2
    assert "kubeflow.defaults.secrets" in done.stderr
    assert "secret@" not in done.stderr
    assert not Path(tmp_path / "x.yaml").exists()
