"""A task's MLflow run over the tries of it: what a try failed by is not said of the one that succeeds."""

import json
import os
import time

import pytest
from mlflow import MlflowClient

from switchyard.components.errors import TerminatedError, UserError
from switchyard.components.process import at_termination
from switchyard.components.tracking import run as tracking
from switchyard.pipelines.runners.kubeflow.task import tracking as task_tracking

SHORT = {"name": "taxi pytorch", "experiment": "taxi", "tags": {"switchyard.pipeline": "taxi"}}
WHOLE = {**SHORT, "params": {"trainer": "pytorch"}, "texts": {"config/pipeline.yaml": "name: taxi\n"}}


@pytest.fixture
def uri(tmp_path, monkeypatch):
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking.client(address)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("KFP_RUN_ID", "one")
    return address


def try_stage(monkeypatch, stage, record, error=None, made_in=()):
    """As a task's process does: what is set in its environment ends with it."""
    with monkeypatch.context() as process:
        process.setenv("SWITCHYARD_RUN_RECORD", json.dumps(record))
        for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "SWITCHYARD_PARENT_RUN_ID", "SWITCHYARD_STAGE"):
            process.setenv(variable, "")
            process.delenv(variable)
        try:
            with task_tracking.mlflow_run_for_task(stage, made_in):
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


def test_the_task_with_the_complete_record_logs_it_even_if_another_task_was_first(uri, monkeypatch):
    try_stage(monkeypatch, "statistics", SHORT)
    assert runs(uri)[0]["parent"].data.params == {}
    try_stage(monkeypatch, "baseline", WHOLE)
    found, client = runs(uri)
    assert found["parent"].data.params == {"trainer": "pytorch"}
    assert found["parent"].info.run_name == "taxi pytorch"
    assert [f.path for f in client.list_artifacts(found["parent"].info.run_id)] == ["config"]
    assert found["statistics"].data.tags["switchyard.pipeline"] == "taxi"


def made(client, experiment):
    """The run of a training that another pipeline run has made."""
    other = client.create_run(experiment, run_name="earlier").info.run_id
    training = client.create_run(
        experiment, run_name="training", tags={"mlflow.parentRunId": other, "switchyard.stage": "training"}
    )
    for step, loss in enumerate((0.9, 0.5, 0.4), 1):
        client.log_metric(training.info.run_id, "val_loss", loss, step=step)
    client.log_metric(training.info.run_id, "seconds", 12)
    client.log_metric(training.info.run_id, "system/cpu", 50, step=1)
    client.log_metric(training.info.run_id, "system/cpu", 60, step=2)
    return training.info.run_id


@pytest.mark.parametrize("plugin", [False, True])
def test_a_cached_training_links_to_the_run_that_trained_it_and_shows_its_curve(uri, monkeypatch, plugin):
    monkeypatch.setenv("SWITCHYARD_LAST_STAGES", "report")
    try_stage(monkeypatch, "evaluation", SHORT)
    found, client = runs(uri)
    parent, experiment = found["parent"].info.run_id, found["parent"].info.experiment_id
    producer_run_id = made(client, experiment)
    if plugin:
        # KFP's plugin makes a run for a task that was cached too, by KFP's name, and leaves it empty.
        client.create_run(experiment, run_name="training", tags={"mlflow.parentRunId": parent})
    for _ in range(2):  # a second try adds nothing
        try_stage(monkeypatch, "report", SHORT, made_in=[producer_run_id, found["evaluation"].info.run_id])
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert sorted(r.info.run_name for r in nested) == ["evaluation", "report", "training"]
    [training] = [r for r in nested if r.info.run_name == "training"]
    assert training.info.status == "FINISHED"
    assert training.data.tags["switchyard.status"] == "cached"
    assert training.data.tags["switchyard.cached_from_run"] == producer_run_id
    assert producer_run_id in training.data.tags["mlflow.note.content"]
    assert [(p.step, p.value) for p in client.get_metric_history(training.info.run_id, "val_loss")] == [
        (1, 0.9),
        (2, 0.5),
        (3, 0.4),
    ]
    assert set(training.data.metrics) == {"val_loss"}
    [evaluation] = [r for r in nested if r.info.run_name == "evaluation"]
    assert evaluation.data.tags["switchyard.status"] == "ran"


def test_a_task_before_others_creates_no_run_for_a_cached_stage(uri, monkeypatch):
    monkeypatch.setenv("SWITCHYARD_LAST_STAGES", "report")
    try_stage(monkeypatch, "ingest", SHORT)
    found, client = runs(uri)
    try_stage(monkeypatch, "evaluation", SHORT, made_in=[made(client, found["parent"].info.experiment_id)])
    parent = found["parent"].info.run_id
    nested = client.search_runs([found["parent"].info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert sorted(r.info.run_name for r in nested) == ["evaluation", "ingest"]


def test_sigterm_ends_the_runs_at_once_while_the_stage_still_unwinds(uri, monkeypatch):
    statuses = {}

    def unwinding():
        at_termination.perform()
        deadline = time.monotonic() + 30
        while "RUNNING" in statuses.values() or not statuses:
            statuses.update({name: r.info.status for name, r in runs(uri)[0].items()})
            assert time.monotonic() < deadline
        return TerminatedError()

    with monkeypatch.context() as process:
        process.setenv("SWITCHYARD_RUN_RECORD", json.dumps(SHORT))
        for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "SWITCHYARD_PARENT_RUN_ID", "SWITCHYARD_STAGE"):
            process.setenv(variable, "")
            process.delenv(variable)
        with pytest.raises(TerminatedError), task_tracking.mlflow_run_for_task("training"):
            raise unwinding()
    assert statuses == {"parent": "FAILED", "training": "FAILED"}
    assert "terminated" in runs(uri)[0]["training"].data.tags["switchyard.error"]


def try_together(monkeypatch, stages, record, failing=None):
    """As the process of a task that does several stages does."""
    with monkeypatch.context() as process:
        process.setenv("SWITCHYARD_RUN_RECORD", json.dumps(record))
        try:
            for stage in stages:
                with task_tracking.mlflow_run_for_task(stage, joint=True):
                    assert tracking.current_run().run_id
                    tracking.current_run().metrics({stage: 1.0})
                    if stage == failing:
                        raise UserError("no such luck")
        except UserError:
            pass


def test_each_stage_of_a_joined_task_has_its_own_run(uri, monkeypatch):
    try_together(monkeypatch, ["baseline", "data_gate"], WHOLE)
    found, _ = runs(uri)
    assert set(found) == {"parent", "baseline", "data_gate"}
    for stage in ("baseline", "data_gate"):
        assert found[stage].info.status == "FINISHED"
        assert set(found[stage].data.metrics) == {stage, "seconds"}
    assert "MLFLOW_RUN_ID" not in os.environ


def test_the_failed_stage_of_a_task_is_the_one_marked_as_failed(uri, monkeypatch):
    try_together(monkeypatch, ["baseline", "data_gate", "never"], WHOLE, failing="data_gate")
    found, _ = runs(uri)
    assert {name: run.info.status for name, run in found.items() if name != "parent"} == {
        "baseline": "FINISHED",
        "data_gate": "FAILED",
    }
    assert found["parent"].data.tags["switchyard.why"] == "data_gate: no such luck"


def test_stages_have_their_own_runs_beside_the_one_of_kfps_plugin(uri, monkeypatch):
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


def test_sigterm_in_a_joined_task_ends_the_stages_run_and_not_the_one_of_kfps_plugin(uri, monkeypatch):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("taxi")
    parent = client.create_run(experiment).info.run_id
    monkeypatch.setenv(
        "MLFLOW_RUN_ID", client.create_run(experiment, run_name="a-then-b", tags={"mlflow.parentRunId": parent}).info.run_id
    )
    statuses = {}

    def statuses_until(stage, status):
        deadline = time.monotonic() + 30
        while statuses.get(stage) != status and time.monotonic() < deadline:
            below = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
            statuses.update({r.info.run_name: r.info.status for r in below})

    with task_tracking.mlflow_run_for_task("a", joint=True):
        pass
    with task_tracking.mlflow_run_for_task("b", joint=True):
        at_termination.perform()
        statuses_until("b", "FAILED")
    assert statuses == {"a-then-b": "RUNNING", "a": "FINISHED", "b": "FAILED"}
    assert client.get_run(parent).info.status == "RUNNING", "the plugin ends it"


def test_the_last_stage_of_a_joined_task_shows_the_cached_ones(uri, monkeypatch):
    monkeypatch.setenv("SWITCHYARD_LAST_STAGES", "report")
    monkeypatch.setenv("SWITCHYARD_RUN_RECORD", json.dumps(SHORT))
    with task_tracking.mlflow_run_for_task("evaluation", joint=True):
        pass
    found, client = runs(uri)
    producer_run_id = made(client, found["parent"].info.experiment_id)
    with task_tracking.mlflow_run_for_task("report", [producer_run_id, found["evaluation"].info.run_id], joint=True):
        pass
    parent = found["parent"].info.run_id
    nested = client.search_runs([found["parent"].info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert {r.info.run_name: r.data.tags["switchyard.status"] for r in nested} == {
        "evaluation": "ran",
        "report": "ran",
        "training": "cached",
    }
