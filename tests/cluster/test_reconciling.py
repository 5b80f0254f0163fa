"""What MLflow says of a run that is over is what KFP says, though no task was left to say it."""

import json
import time

import pytest
from mlflow import MlflowClient

from switchyard.components.tracking import run as tracking
from switchyard.pipelines.api.submit import _parent
from switchyard.pipelines.commands import runs as runs_command
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.kubeflow.cluster.run import PluginRun, Run
from switchyard.pipelines.runners.kubeflow.parent_run import Parent, find_or_make
from tests.cluster.pretending import spec_of, submitted
from tests.command import BREAST_CANCER

RECORD = {"name": "one", "experiment": "mine", "tags": {}}


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def tracked(mlflow, run_id, *stages):
    """Makes what the tasks of a run make, and leaves it running; returns a function: what MLflow says of each."""
    parent = find_or_make(mlflow, run_id, RECORD)
    client = MlflowClient(tracking_uri=mlflow)
    nested = {
        s: tracking.create_run(mlflow, parent.experiment_id, s, {"mlflow.parentRunId": parent.run_id, "switchyard.stage": s})
        for s in stages
    }
    ids = {"parent": parent.run_id, **nested}
    return ids, lambda: {name: client.get_run(i).info.status for name, i in ids.items()}


def await_end(server, run_id):
    while server.runs[run_id].finished is None:
        time.sleep(0.01)


def test_a_run_that_the_plugin_or_a_short_record_made_is_named_by_what_differs_too(mlflow):
    tags = {"switchyard.pipeline": "named", "switchyard.trainer": "pytorch"}

    def record(epochs):
        params = {"name": "named", "trainer.hyperparameters.epochs": epochs}
        return {"name": "named", "experiment": "named", "tags": tags, "params": params, "texts": {}}

    find_or_make(mlflow, "first", record(3))
    short = find_or_make(mlflow, "second", {"name": "named", "experiment": "named", "tags": tags})
    short.describe(record(4))
    plugin = tracking.create_run(mlflow, short.experiment_id, "KFP's name", {})
    Parent(mlflow, short.experiment_id, plugin, "").describe(record(5))
    client = MlflowClient(tracking_uri=mlflow)
    names = [client.get_run(run).info.run_name for run in (short.run_id, plugin)]
    assert names == ["named: hyperparameters.epochs 4", "named: hyperparameters.epochs 5"]


@pytest.mark.parametrize("look", ["show", "list"])
def test_showing_a_finished_run_ends_its_mlflow_runs(kfp, mlflow, look, capsys):
    server, client = kfp
    server.faults = {"training": [("FAILED", "OOMKilled")]}
    run_id = submitted(client)
    _, states = tracked(mlflow, run_id, "ingest", "training")
    await_end(server, run_id)
    if look == "show":
        runs_command.show_run(client.connection, mlflow, run_id, as_json=True)
    else:
        runs_command.list_runs(client.connection, mlflow, None, 20, as_json=True)
    assert states() == {"parent": "FAILED", "ingest": "KILLED", "training": "KILLED"}
    assert "warning" not in capsys.readouterr().err


def test_listing_runs_ends_mlflow_runs_below_a_finished_parent(kfp, mlflow):
    server, client = kfp
    run_id = submitted(client)
    ids, states = tracked(mlflow, run_id, "training")
    MlflowClient(tracking_uri=mlflow).set_terminated(ids["parent"], "FINISHED")
    await_end(server, run_id)
    runs_command.list_runs(client.connection, mlflow, None, 20, as_json=True)
    assert states() == {"parent": "FINISHED", "training": "KILLED"}


def test_a_run_that_still_runs_is_left_running(kfp, mlflow):
    server, client = kfp
    server.faults = {"training": [("RUNNING", "")]}
    run_id = submitted(client)
    _, states = tracked(mlflow, run_id, "training")
    runs_command.list_runs(client.connection, mlflow, None, 20, as_json=True)
    runs_command.show_run(client.connection, mlflow, run_id, as_json=True)
    assert set(states().values()) == {"RUNNING"}
    client.terminate(run_id)


def test_terminate_waits_for_the_end_and_leaves_no_open_mlflow_run(kfp, mlflow, capsys):
    server, client = kfp
    server.faults = {"training": [("RUNNING", "")]}
    run_id = submitted(client)
    _, states = tracked(mlflow, run_id, "training")
    runs_command.terminate_run(client.connection, mlflow, run_id)
    assert f"run {run_id} has ended: CANCELED" in capsys.readouterr().out
    assert states() == {"parent": "KILLED", "training": "KILLED"}


def test_a_run_that_succeeded_on_retry_shows_no_error(kfp, mlflow):
    server, client = kfp
    run_id = submitted(client)
    ids, states = tracked(mlflow, run_id, "training")
    store = MlflowClient(tracking_uri=mlflow)
    for name, tags in {
        "parent": {"switchyard.status": "failed", "switchyard.why": "training: no such luck"},
        "training": {"switchyard.status": "failed", "switchyard.error": "no such luck"},
    }.items():
        for key, value in tags.items():
            store.set_tag(ids[name], key, value)
        store.set_terminated(ids[name], "FAILED")
    await_end(server, run_id)
    runs_command.show_run(client.connection, mlflow, run_id, as_json=True)
    assert states() == {"parent": "FINISHED", "training": "FINISHED"}
    kept = {k for i in ids.values() for k in store.get_run(i).data.tags if k in ("switchyard.why", "switchyard.error")}
    assert kept == set()


def test_the_reason_why_a_model_was_not_blessed_is_kept_and_is_no_failure(kfp, mlflow):
    server, client = kfp
    run_id = submitted(client)
    ids, _ = tracked(mlflow, run_id)
    store = MlflowClient(tracking_uri=mlflow)
    store.set_tag(ids["parent"], "switchyard.status", "not_blessed")
    store.set_tag(ids["parent"], "switchyard.why", "not blessed: auc")
    await_end(server, run_id)
    runs_command.show_run(client.connection, mlflow, run_id, as_json=True)
    assert store.get_run(ids["parent"]).data.tags["switchyard.why"] == "not blessed: auc"


@pytest.mark.core
def test_a_run_records_mlflows_address_as_used_by_its_submitter(kfp, monkeypatch):
    """With the server's answer mocked: what is looked at is whom it asks."""
    from switchyard.pipelines.runners.kubeflow.runs import reconciling

    server, client = kfp
    spec = spec_of()
    record = {"texts": {"config/pipeline.yaml": "tracking:\n  uri: http://127.0.0.1:5000\n"}}
    environment = [
        {"name": "SWITCHYARD_RUN_RECORD", "value": json.dumps(record)},
        {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow.mlflow:5000"},
    ]
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["env"] = environment
    run_id = client.submit(
        "one", client.experiment("mine"), {"pipeline_spec": spec},
        parameters={}, pipeline_root=None, service_account=None, mlflow_experiment="mine",
    ).run_id  # fmt: skip
    await_end(server, run_id)
    asked = []
    monkeypatch.setattr(reconciling, "_unreconciled", lambda uri, *_, **__: asked.append(uri) or [])
    runs_command.show_run(client.connection, None, run_id, as_json=True)
    assert asked == ["http://127.0.0.1:5000"]


@pytest.mark.core
def test_an_mlflow_unreachable_from_this_machine_is_a_warning_with_the_fix(kfp, capsys):
    server, client = kfp
    run_id = submitted(client)
    await_end(server, run_id)
    runs_command.show_run(client.connection, "http://127.0.0.1:9", run_id, as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out)["state"] == "SUCCEEDED"
    assert "warning: MLflow at http://127.0.0.1:9 is unreachable from this machine" in said.err
    assert "--tracking-uri" in said.err


@pytest.mark.core
@pytest.mark.parametrize(("variable", "known"), [("http://127.0.0.1:5000", "http://127.0.0.1:5000"), ("sqlite:///x.db", None)])
def test_the_run_of_kfps_plugin_is_found_by_the_variable_alone(monkeypatch, variable, known):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    config = load_config(BREAST_CANCER, overrides=["task=binary"])
    run = Run("r", "one", "RUNNING", None, "", None, None, PluginRun("1", "abc", "http://mlflow/#/x"), {}, None)
    assert _parent(run, config, None, print).uri == known
