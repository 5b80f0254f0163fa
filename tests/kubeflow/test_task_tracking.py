"""A task's MLflow run over the tries of it: what a try failed by is not said of the one that succeeds."""

import json

import pytest
from mlflow import MlflowClient

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
