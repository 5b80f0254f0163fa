"""A task's MLflow run over the tries of it: what a try failed by is not said of the one that succeeds."""

import json
import os

import pytest
from mlflow import MlflowClient

from components import tracking
from components.errors import UserError
from pipelines.runners.kubeflow import task_tracking

SHORT = {"name": "taxi pytorch", "experiment": "taxi", "tags": {"switchyard.pipeline": "taxi"}}
WHOLE = {**SHORT, "params": {"trainer": "pytorch"}, "texts": {"config/pipeline.yaml": "name: taxi\n"}}


@pytest.fixture
def uri(tmp_path, monkeypatch):
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("KFP_RUN_ID", "one")
    return address


def try_stage(monkeypatch, stage, record, error=None):
    """As a task's process does: what is set in its environment ends with it."""
    with monkeypatch.context() as process:
        process.setenv("SWITCHYARD_RUN_RECORD", json.dumps(record))
        for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "SWITCHYARD_PARENT_RUN_ID", "SWITCHYARD_STAGE"):
            process.setenv(variable, "")
            process.delenv(variable)
        try:
            with task_tracking.task(stage):
                if error:
                    raise error
        except UserError:
            pass


def runs(uri):
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name("taxi").experiment_id])
    return {r.data.tags.get("switchyard.stage", "parent"): r for r in found}, client


def test_a_retry_that_succeeds_leaves_no_error_behind(uri, monkeypatch):
    try_stage(monkeypatch, "training", WHOLE, UserError("no such luck"))
    failed, _ = runs(uri)
    assert failed["parent"].data.tags["switchyard.why"] == "training: no such luck"
    assert failed["training"].info.status == "FAILED"
    try_stage(monkeypatch, "training", WHOLE)
    found, _ = runs(uri)
    assert len(found) == 2
    assert found["training"].info.status == "FINISHED"
    assert found["training"].data.tags["switchyard.status"] == "ran"
    assert "switchyard.error" not in found["training"].data.tags
    assert not {"switchyard.why", "switchyard.status"} & set(found["parent"].data.tags)
    assert found["parent"].info.status == "RUNNING"


def test_the_task_with_the_whole_record_tells_it_though_another_one_was_first(uri, monkeypatch):
    try_stage(monkeypatch, "statistics", SHORT)
    assert runs(uri)[0]["parent"].data.params == {}
    try_stage(monkeypatch, "baseline", WHOLE)
    found, client = runs(uri)
    assert found["parent"].data.params == {"trainer": "pytorch"}
    assert found["parent"].info.run_name == "taxi pytorch"
    assert [f.path for f in client.list_artifacts(found["parent"].info.run_id)] == ["config"]
    assert found["statistics"].data.tags["switchyard.pipeline"] == "taxi"


def try_together(monkeypatch, stages, record, failing=None):
    """As the process of a task that does several stages does."""
    with monkeypatch.context() as process:
        process.setenv("SWITCHYARD_RUN_RECORD", json.dumps(record))
        try:
            for stage in stages:
                with task_tracking.task(stage, joint=True):
                    assert tracking.ambient().run_id
                    tracking.ambient().metrics({stage: 1.0})
                    if stage == failing:
                        raise UserError("no such luck")
        except UserError:
            pass


def test_each_stage_of_a_task_that_does_several_has_a_run_of_its_own(uri, monkeypatch):
    try_together(monkeypatch, ["baseline", "data_gate"], WHOLE)
    found, _ = runs(uri)
    assert set(found) == {"parent", "baseline", "data_gate"}
    for stage in ("baseline", "data_gate"):
        assert found[stage].info.status == "FINISHED"
        assert set(found[stage].data.metrics) == {stage, "seconds"}
    assert "MLFLOW_RUN_ID" not in os.environ


def test_the_stage_of_a_task_that_failed_is_the_one_that_says_so(uri, monkeypatch):
    try_together(monkeypatch, ["baseline", "data_gate", "never"], WHOLE, failing="data_gate")
    found, _ = runs(uri)
    assert {name: run.info.status for name, run in found.items() if name != "parent"} == {
        "baseline": "FINISHED",
        "data_gate": "FAILED",
    }
    assert found["parent"].data.tags["switchyard.why"] == "data_gate: no such luck"


def test_beside_the_run_that_kfps_plugin_made_for_a_task_its_stages_have_their_own(uri, monkeypatch):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("taxi")
    parent = client.create_run(experiment).info.run_id
    plugins = client.create_run(experiment, run_name="a-then-b", tags={"mlflow.parentRunId": parent}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", plugins)
    try_together(monkeypatch, ["a", "b"], SHORT, failing="b")
    below = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert {r.info.run_name: r.info.status for r in below} == {"a-then-b": "RUNNING", "a": "FINISHED", "b": "FAILED"}
    assert client.get_run(parent).info.status == "RUNNING", "the plugin ends it"
    assert os.environ["MLFLOW_RUN_ID"] == plugins
