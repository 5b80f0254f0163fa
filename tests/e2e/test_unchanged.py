"""The same run again finds nothing to do, unless something that goes in, or the registry, changed since."""

import json
import shutil

import pytest
import yaml
from mlflow import MlflowClient

from tests.command import ANEW, EXAMPLES, STAGES, until_sent


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A copy of the example that is trained in a moment."""
    folder = tmp_path_factory.mktemp("unchanged") / "example"
    shutil.copytree(EXAMPLES / "breast_cancer", folder, ignore=shutil.ignore_patterns(".switchyard", "__pycache__"))
    path = folder / "pipeline.yaml"
    document = yaml.safe_load(path.read_text())
    document["trainer"]["hyperparameters"] = {"epochs": 3}
    document["serving"] = {"infra_validation": None}
    document["evaluation"] = {"improvement": None}
    path.write_text(yaml.safe_dump(document))
    return folder


@pytest.fixture(scope="module")
def again(place, warm):
    def run(*arguments):
        return warm.run(place / "pipeline.yaml", place / "w", *arguments)

    return run


@pytest.fixture(scope="module")
def first(again):
    return again()


@pytest.fixture(scope="module")
def client(place, first):
    return MlflowClient(f"sqlite:///{place / 'w' / 'mlflow.db'}")


def whole(done):
    """It looked at what lies outside of the workspace."""
    return done.json["unchanged_since"] is None and {s for s, how in done.stages.items() if how == "ran"} >= ANEW & set(STAGES)


def test_a_second_identical_run_is_recorded_as_unchanged(first, again, client, place):
    assert whole(first)
    second = again()
    assert set(second.stages.values()) == {"cached"}
    assert list(second.stages) == list(first.stages)
    same = ("status", "metrics", "model_version", "champion", "trainer", "models")
    assert {k: second.json[k] for k in same} == {k: first.json[k] for k in same}
    assert second.json["unchanged_since"] == first.json["mlflow_run_id"]
    assert "nothing has changed since MLflow run" in second.stderr
    run = client.get_run(second.json["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["auc"] == pytest.approx(first.json["metrics"]["auc"])
    assert run.data.tags["blessed"] == "true"
    assert client.list_artifacts(run.info.run_id, "report")[0].path == "report/report.html"
    until_sent(place / "w")
    nested = client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'")
    assert {r.data.tags["switchyard.status"] for r in nested} == {"cached"}
    for each in nested:
        worked = client.get_run(each.data.tags["switchyard.cached_from_run"])
        assert worked.data.tags["mlflow.parentRunId"] == first.json["mlflow_run_id"]
        assert worked.info.run_name == each.info.run_name


def test_an_option_runs_an_unchanged_pipeline(first, again):
    assert whole(again("--even-if-unchanged"))


def test_a_moved_alias_makes_the_next_run_check_its_stages(first, again, client):
    again()
    client.delete_registered_model_alias("breast_cancer", "champion")
    assert whole(again())


def test_changed_data_makes_the_next_run_check_its_stages(first, again, place):
    again()
    data = place / "data.csv"
    data.write_text(data.read_text() + data.read_text().splitlines()[-1] + "\n")
    changed = again()
    assert whole(changed)
    assert changed.stages["ingest"] == "ran"


def test_a_lost_artifact_makes_the_next_run_check_its_stages(first, again, place):
    again()
    last = json.loads((place / "w" / "state" / "last_run.json").read_text())
    shutil.rmtree(last["outputs"]["report"]["report"])
    assert whole(again())
