"""Tracking against real MLflow databases; "away" is a database file that cannot be made."""

import json

import pytest
from mlflow import MlflowClient

from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.journal import Journal, pending, process_identity, replay, write_header
from switchyard.components.tracking.model_registry import alias_version
from switchyard.pipelines.runners.tracking.run_name import run_name
from switchyard.pipelines.runners.tracking.upload import upload
from switchyard.pipelines.workspace import Workspace

pytestmark = pytest.mark.core


@pytest.fixture
def here(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking.client(uri)
    return uri


def test_the_records_of_a_run_are_in_mlflow(here, tmp_path):
    experiment = tracking.ensure_experiment(here, "e", tmp_path / "files")
    run = tracking.Run(here, tracking.create_run(here, experiment, "r", {}))
    run.params({f"p{i}": i for i in range(150)})
    run.metrics({"loss": 0.5}, step=1)
    run.metrics({"loss": 0.25}, step=2)
    run.text("hello", "notes/a.txt")
    run.end("FINISHED")
    client = MlflowClient(here)
    stored = client.get_run(run.run_id)
    assert len(stored.data.params) == 150
    assert [m.value for m in client.get_metric_history(run.run_id, "loss")] == [0.5, 0.25]
    assert [f.path for f in client.list_artifacts(run.run_id, "notes")] == ["notes/a.txt"]
    assert stored.info.status == "FINISHED"
    assert (tmp_path / "files").is_dir()


def test_a_runs_name_says_what_changed_and_fits_into_mlflows_column(here, tmp_path):
    experiment = tracking.ensure_experiment(here, "e", tmp_path / "files")
    tags = {"switchyard.pipeline": "p", "switchyard.trainer": "pytorch"}
    files = json.dumps([f"part{i}.csv" for i in range(1000)])  # longer than a parameter's value
    params = {"name": "p", "seed": 1, "data.paths": files}
    tracking.Run(here, tracking.create_run(here, experiment, "first", tags)).params(params)
    assert run_name(here, experiment, {"name": "p", "tags": tags, "params": params}) == "p"
    assert run_name(here, experiment, {"name": "p", "tags": tags, "params": params | {"seed": 2}}) == "p: seed 2"
    long = params | {f"data.columns.{'x' * 140}{i}": "integer" for i in range(3)}
    assert len(run_name(here, experiment, {"name": "p", "tags": tags, "params": long})) == 250


def test_records_that_cannot_be_sent_are_kept_and_sent_later(here, tmp_path, capsys):
    workspace = Workspace(tmp_path)
    folder = workspace.journal / "run1"
    new = {"name": "n", "tags": {"a": "b"}, "started": 1000}
    write_header(
        folder,
        {
            "uri": here,
            "experiment": "e",
            "artifacts": str(tmp_path / "files"),
            "runs": {},
            "new": {"pipeline": new, "training": new},
        },
    )
    for key in ("pipeline", "training"):
        run = tracking.Run("http://127.0.0.1:9", None, Journal(folder, key))
        run.metrics({"loss": 1.0}, step=3)
        run.end("FINISHED")
    assert [f.name for f in pending(workspace.journal)] == ["run1"]
    assert upload(workspace, print) == 1
    assert pending(workspace.journal) == []
    client = MlflowClient(here)
    runs = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert len(runs) == 2
    child = next(r for r in runs if "mlflow.parentRunId" in r.data.tags)
    assert child.data.metrics == {"loss": 1.0}
    assert child.info.status == "FINISHED"


def test_the_records_of_a_killed_run_are_sent_and_its_run_is_ended(here, tmp_path):
    """MLflow went away in the middle of a run that was killed then: what is RUNNING there cannot end by itself."""
    workspace = Workspace(tmp_path)
    experiment = tracking.ensure_experiment(here, "e", tmp_path / "files")
    parent, stage = (tracking.create_run(here, experiment, name, {}) for name in ("p", "training"))
    header = {"uri": here, "experiment": "e", "artifacts": "", "runs": {"pipeline": parent, "training": stage}, "new": {}}
    write_header(workspace.journal / "run1", header | process_identity())
    Journal(workspace.journal / "run1", "training").append({"op": "metrics", "values": {"loss": 1.0}, "step": 1, "time": 1})
    said = []
    assert upload(workspace, said.append) == 0, "it may still write to its journal"
    assert "still runs" in said[0]
    # Another process with the same number, as after a restart of the machine.
    write_header(workspace.journal / "run1", header | process_identity() | {"pid_since": 1000.0})
    assert upload(workspace, said.append) == 1
    client = MlflowClient(here)
    assert client.get_run(stage).data.metrics == {"loss": 1.0}
    assert [client.get_run(run).info.status for run in (parent, stage)] == ["KILLED", "KILLED"]


def test_an_interrupted_upload_resumes(tmp_path):
    folder = tmp_path / "run1"
    write_header(folder, {"uri": "sqlite:///x", "experiment": "e", "artifacts": "", "runs": {"pipeline": "id"}, "new": {}})
    journal = Journal(folder, "pipeline")
    for i in range(5):
        journal.append({"op": "metrics", "values": {"i": float(i)}, "step": 0, "time": 0})
    with open(folder / "pipeline.jsonl", "a") as file:
        file.write('{"op": "cut sho')
    sent = []

    def send(run_id, operation):
        if len(sent) == 3:
            raise ConnectionError
        sent.append(int(operation["values"]["i"]))

    with pytest.raises(ConnectionError):
        replay(folder, None, send)
    assert [json.loads(line)["values"]["i"] for line in (folder / "pipeline.jsonl").read_text().splitlines()[:-1]] == [3, 4]
    replay(folder, None, lambda run_id, operation: sent.append(int(operation["values"]["i"])))
    assert sent == [0, 1, 2, 3, 4]
    assert not folder.exists()


def test_a_model_is_recorded_once(here, tmp_path):
    experiment = tracking.ensure_experiment(here, "e", tmp_path / "files")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "MLmodel").write_text("flavors: {}\n")
    run = tracking.Run(here, tracking.create_run(here, experiment, "r", {}))

    def register(uri, compared_with=None, passed=True):
        found = run.register(
            {
                "name": "m",
                "bundle": str(bundle),
                "uri": uri,
                "passed": passed,
                "blessed": passed,
                "compared_with": compared_with,
                "why": "",
                "metrics": {},
                "data": "",
                "tags": {},
                "description": "",
            }
        )
        return found.version

    def champion(name):
        return alias_version(MlflowClient(here), name, "champion")

    assert register("one") == "1"
    assert register("one") == "1"
    assert register("bad", passed=False) is None
    assert champion("m") == "1"
    assert register("two", compared_with="1") == "2"
    assert champion("m") == "2"
    assert champion("other") is None
    assert len(MlflowClient(here).search_logged_models([experiment])) == 3


def test_a_runs_name_says_what_differs_from_the_pipelines_last_run(tmp_path):
    uri = f"sqlite:///{tmp_path / 'm.db'}"
    client = tracking.client(uri)
    experiment = client.create_experiment("e", artifact_location=str(tmp_path / "files"))
    params = {"name": "p", "trainer": "pytorch", "learning_rate": "0.1", "data.path": "a.csv", "split.eval": "0.1"}
    tags = {"switchyard.pipeline": "p", "switchyard.trainer": "pytorch"}
    first = {"name": "p pytorch", "params": params, "tags": tags}
    assert run_name(uri, experiment, first) == "p pytorch"
    run_id = client.create_run(experiment, tags=tags).info.run_id
    tracking.Run(uri, run_id).params(params)
    client.create_run(experiment, tags={"switchyard.pipeline": "p"})  # a stage's
    client.create_run(experiment, tags={**tags, "switchyard.pipeline": "other"})

    assert run_name(uri, experiment, first) == "p pytorch"
    with_new_key = {**first, "params": {**params, "trainer.sample_weight": "null"}}
    assert run_name(uri, experiment, with_new_key) == "p pytorch", "a key that a later version added, and nothing sets"
    without = {k: v for k, v in params.items() if k != "split.eval"}
    changed = {**first, "params": {**without, "learning_rate": 0.01, "evaluation.slices": "[['a long column']]"}}
    assert run_name(uri, experiment, changed) == (
        "p pytorch: learning_rate 0.01, evaluation.slices [['a long column']], without split.eval"
    )
    moved = {**first, "params": {**params, "data.path": '["/a/long/folder/of/some/user/b.csv"]'}}
    assert run_name(uri, experiment, moved) == 'p pytorch: data.path ["b.csv"]'
    many = {**first, "params": {**params, **{f"x.y.{i}": "v" * 30 for i in range(5)}}}
    assert run_name(uri, experiment, many).endswith("y.2 vvvvvvvvvvvvvvvvvvvvvvv… and 2 more")


def test_a_run_has_its_plain_name_while_mlflow_is_unreachable():
    record = {"name": "p pytorch", "params": {}, "tags": {"switchyard.pipeline": "p"}}
    assert run_name("http://127.0.0.1:9", "1", record) == "p pytorch"
