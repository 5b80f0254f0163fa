"""Data in an object store that `submit` can read: what the cluster would look up in a task of its own is looked up here."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from switchyard.components.errors import UserError
from switchyard.components.ingest.stores import remote_size
from switchyard.pipelines.api.compile import compile_for_cluster
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.kubeflow import local_inputs
from switchyard.pipelines.runners.kubeflow.compiler.workflow_size import workflow_size
from switchyard.pipelines.runners.kubeflow.task.runtime import _verify, driver_output_of
from switchyard.pipelines.workspace import Workspace
from tests.command import BREAST_CANCER
from tests.ingest_inputs import input_spec
from tests.object_store import object_store

IN_PODS = "kubeflow.defaults.environment.MLFLOW_TRACKING_URI=http://mlflow.mlflow:5000"
IN_STORE = ("data.path=s3://bucket/rows/*.csv", "kubeflow.image=registry.example.org/switchyard:1")
TASKS = [
    "baseline-then-data-gate",
    "evaluation-then-infra-validation-then-registry-then-report",
    "ingest-then-schema-then-statistics-then-validation",
    "transform-then-training",
]


@pytest.fixture
def objects(monkeypatch):
    found = {"bucket/rows/data.csv": (BREAST_CANCER.parent / "data.csv").read_bytes()}
    with object_store(found) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield found


def submitted(tmp_path, *overrides, once=True, progress=False):
    config = load_config(BREAST_CANCER, overrides=[*IN_STORE, "task=binary", *overrides])
    return compile_for_cluster(config, Path(BREAST_CANCER), Workspace(tmp_path), progress=progress, upload=True, once=once)[0]


def tasks(compiled):
    return sorted(compiled.spec["root"]["dag"]["tasks"])


def test_a_run_on_data_in_an_object_store_is_eight_pods_where_submit_can_read_it(objects, mlflow, tmp_path):
    compiled = submitted(tmp_path, f"tracking.uri={mlflow}", IN_PODS)
    assert tasks(compiled) == TASKS
    assert workflow_size(compiled.spec, compiled.platform).total <= 300_000
    again = submitted(tmp_path, f"tracking.uri={mlflow}", IN_PODS)
    assert again.source == compiled.source, "equal data is taken from the cache"


def test_data_that_is_not_transformed_quickly_leaves_training_a_task_of_its_own(objects, tmp_path):
    objects["bucket/rows/more.csv"] = objects["bucket/rows/data.csv"] * 100
    assert tasks(submitted(tmp_path)) == sorted([*TASKS[:3], "training", "transform"])


def test_a_schedule_looks_the_data_up_in_each_run(objects, mlflow, tmp_path):
    assert "drive-ingest" in tasks(submitted(tmp_path, f"tracking.uri={mlflow}", IN_PODS, once=False))


def test_an_object_store_that_only_the_cluster_reads_is_announced(objects, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(local_inputs, "remote_size", partial(remote_size, seconds=2))
    compiled = submitted(tmp_path, progress=True)
    said = "the data is looked up by a task of its own on the cluster, since this machine cannot: data.path: no answer within 2 s"
    assert said in " ".join(capfd.readouterr().err.split())
    assert "drive-ingest" in tasks(compiled)


def test_data_that_changes_after_submit_is_refused_and_never_cached_as_the_earlier(objects):
    driver = {"kind": "PythonClassExecutableSpec", "spec": {"classPath": "switchyard.components.ingest.driver.Driver"}}
    node = {"pipeline": "p", "id": "ingest", "types": {"examples": "tfx.types.standard_artifacts.Examples"}}
    given = {"inputs": {}, "properties": {"input": json.dumps(asdict(input_spec("s3://bucket/rows/*.csv")))}}
    made = driver_output_of({**node, "driver": driver}, **given)
    node |= {"verify": driver, "driver_output": made}
    _verify(node, **given, files=None)
    objects["bucket/rows/data.csv"] += b"\n"
    with pytest.raises(UserError, match="the data has changed since the pipeline was submitted; submit it again"):
        _verify(node, **given, files=None)
