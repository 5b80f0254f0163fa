"""One journal that MLflow refuses holds up no other, and loses nothing. Against real MLflow databases and servers."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.validation import _validate_experiment_name, _validate_logged_model_name, _validate_model_name

from switchyard.components.errors import StageError, UserError
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.journal import Journal, write_header
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.tracking.runs import RunTracker
from switchyard.pipelines.runners.tracking.upload import upload
from switchyard.pipelines.workspace import Workspace

pytestmark = pytest.mark.core
DOCUMENT = {"name": "x", "data": {"path": "a.csv"}, "label": "y"}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Made once: MLflow takes seconds for it."""
    file = tmp_path_factory.mktemp("made once") / "mlflow.db"
    tracking.client(f"sqlite:///{file}")
    return file


@pytest.fixture
def here(tmp_path, database):
    return f"sqlite:///{shutil.copyfile(database, tmp_path / 'mlflow.db')}"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "w")


def journal(workspace, name, uri, *operations, **header):
    """A journal as a run leaves it that MLflow was away from."""
    folder = workspace.journal / name
    new = {"name": name, "tags": {}, "started": 1000}
    files = str(workspace.root / "files")
    write_header(folder, {"uri": uri, "experiment": "e", "artifacts": files, "runs": {}, "new": {"pipeline": new}, **header})
    for operation in operations:
        Journal(folder, "pipeline").append(operation)
    return folder


def metric(name):
    return {"op": "metrics", "values": {name: 0.5}, "step": 0, "time": 1}


def model(name, bundle):
    described = {"name": name, "bundle": str(bundle), "uri": f"{bundle}", "passed": True, "blessed": False, "compared_with": None}
    return {"op": "register", "model": {**described, "why": "", "metrics": {}, "data": "", "tags": {}, "description": ""}}


def bundle(folder):
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    return folder


def sent_runs(uri):
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("e")
    return {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])} if experiment else {}


BAD = {
    "a model's name": (model("a/b", "BUNDLE"), {}, "Invalid model name"),
    "a file that is gone": ({"op": "file", "path": "/none/x.log", "folder": ""}, {}, "no longer exists"),
    "a bundle that is gone": (model("m", "/none/bundle"), {}, "no longer exists"),
    "an experiment's name": (metric("loss"), {"experiment": "", "runs": {}}, "Invalid experiment name"),
    "a run that MLflow does not know": (metric("loss"), {"runs": {"pipeline": "0" * 32}}, "not found"),
    "a parameter's name": ({"op": "params", "values": {"a\nb": "1"}}, {}, "Invalid value"),
    "an operation that is damaged": ({"op": "text"}, {}, "content"),
}


@pytest.mark.parametrize(("operation", "header", "why"), BAD.values(), ids=BAD)
def test_refused_records_are_set_aside_and_named_and_the_rest_is_sent(here, workspace, tmp_path, operation, header, why):
    if operation["op"] == "register" and operation["model"]["bundle"] == "BUNDLE":
        operation = model("a/b", bundle(tmp_path / "bundle"))
    journal(workspace, "1-bad", here, metric("before"), operation, metric("after"), **header)
    journal(workspace, "2-good", here, metric("loss"))
    said = []
    with pytest.raises(StageError) as told:
        upload(workspace, said.append)
    assert "MLflow is unreachable" not in str(told.value)
    assert "did not accept 1 of the journals" in str(told.value)
    assert sent_runs(here)["2-good"].data.metrics == {"loss": 0.5}
    if not header:
        assert sent_runs(here)["1-bad"].data.metrics == {"before": 0.5, "after": 0.5}
    aside = workspace.journal / "refused" / "1-bad"
    assert why in (aside / "why.txt").read_text()
    assert any(why in line and "1-bad" in line and str(aside) in line for line in said)
    assert json.dumps(operation["op"]) in (aside / "pipeline.jsonl").read_text()
    assert upload(workspace, said.append) == 0, "nothing is sent twice, and nothing is in the way"


def test_a_damaged_journal_does_not_block_other_journals(here, workspace):
    folder = journal(workspace, "1-bad", here, metric("loss"))
    (folder / "pipeline.json").write_text("{")
    journal(workspace, "2-good", here, metric("loss"))
    with pytest.raises(StageError, match="did not accept 1 of the journals"):
        upload(workspace, print)
    assert list(sent_runs(here)) == ["2-good"]
    assert (workspace.journal / "refused" / "1-bad" / "pipeline.jsonl").exists()


def line(operation):
    return (operation if isinstance(operation, str) else json.dumps(operation)).encode(errors="surrogateescape") + b"\n"


DAMAGED = {
    "bytes that are no text": "\udcff\udc81\r\x0c",
    "NUL": "\0" * 100,
    "half a line and more": '{"op":"met',
    "no object": "[1]",
    "null": "null",
    "nesting without end": "[" * 100_000,
    "an operation that there is not": {"op": "rm"},
    "an operation without a name": {},
    "values that are a list": {"op": "metrics", "values": [1], "step": 0, "time": 1},
    "a metric that is a text": {"op": "metrics", "values": {"a": "x"}, "step": 0, "time": 1},
    "a step beyond any database's": {"op": "metrics", "values": {"a": 1}, "step": 10**30, "time": 1},
    "a status that there is not": {"op": "end", "status": "BANANA", "time": 1},
    "a path that is a number": {"op": "file", "path": 5, "folder": ""},
    "a model that is none": {"op": "register", "model": None},
    "a signature that is none": {"op": "register", "model": {"name": "m", "bundle": "b", "signature": 5}},
    "a name that leads out": {"op": "text", "content": "x", "name": "../../x.txt"},
    "an absolute name": {"op": "text", "content": "x", "name": "/tmp/x.txt"},
    "a folder that leads out": {"op": "file", "path": "files/x", "folder": "a/../../.."},
    "half of a surrogate pair": '{"op": "tags", "values": {"a": "\\ud800"}}',
}


def test_a_version_that_is_registered_later_has_its_signature(here, workspace):
    signed = model("m", bundle(workspace.root / "bundle"))
    signed["model"]["signature"] = "signed"
    journal(workspace, "1-later", here, signed)
    upload(workspace, lambda text: None)
    found = MlflowClient(here).get_model_version_download_uri("m", "1")
    assert (Path(local_file_uri_to_path(found)) / "model.sig").read_text() == "signed"


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_is_set_aside_and_those_around_it_are_sent(here, workspace, damage):
    folder = journal(workspace, "1-bad", here)
    content = line(metric("before")) + line(damage) + line(metric("after"))
    (folder / "pipeline.jsonl").write_bytes(content + b'{"op": "cut')
    said = []

    with pytest.raises(StageError, match="did not accept 1 of the journals"):
        upload(workspace, said.append)

    assert sent_runs(here)["1-bad"].data.metrics == {"before": 0.5, "after": 0.5}
    assert (workspace.journal / "refused" / "1-bad" / "pipeline.jsonl").read_bytes() == line(damage)
    assert any("is damaged" in s or "a damaged line" in s for s in said)
    assert not folder.exists()


HEADERS = {
    "nesting without end": b"[" * 100_000,
    "no object": b"[]",
    "null": b"null",
    "bytes that are no text": b"\xff",
    "runs that are a list": {"runs": []},
    "an address that is a number": {"uri": 5},
    "no address": {"uri": ""},
    "an experiment that is a list": {"experiment": ["x"]},
    "a run without a name": {"new": {"pipeline": {}}},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_damaged_header_does_not_block_other_journals(here, workspace, header):
    folder = journal(workspace, "1-bad", here, metric("loss"))
    whole = json.loads((folder / "pipeline.json").read_text())
    (folder / "pipeline.json").write_bytes(json.dumps({**whole, **header}).encode() if isinstance(header, dict) else header)
    journal(workspace, "2-good", here, metric("loss"))

    with pytest.raises(StageError, match="did not accept 1 of the journals"):
        upload(workspace, print)

    assert list(sent_runs(here)) == ["2-good"]
    assert (workspace.journal / "refused" / "1-bad" / "pipeline.jsonl").exists()


def test_an_unreadable_header_does_not_block_other_journals(here, workspace):
    folder = journal(workspace, "1-bad", here, metric("loss"))
    (folder / "pipeline.json").unlink()
    (folder / "pipeline.json").mkdir()
    journal(workspace, "2-good", here, metric("loss"))

    with pytest.raises(StageError, match="did not accept 1 of the journals"):
        upload(workspace, print)

    assert list(sent_runs(here)) == ["2-good"]


@pytest.mark.parametrize("how", ["absolute", "climbing", "linked", "renamed", "registered", "the workspace", "a linked journal"])
def test_a_journal_sends_no_file_from_outside_its_workspace(here, workspace, tmp_path, how):
    """Who uploads a workspace that somebody else made gives no other file away."""
    secret = bundle(tmp_path / "home") / "secret.txt"
    secret.write_text("CANARY")
    folder = journal(workspace, "1-bad", here)
    other = journal(Workspace(tmp_path / "other"), "3-bad", here, {"op": "file", "path": str(secret), "folder": ""})
    (folder / "files").mkdir()
    (folder / "files" / "x.txt").symlink_to(secret)
    operation = {
        "absolute": {"op": "file", "path": str(secret), "folder": ""},
        "climbing": {"op": "file", "path": "../../../home/secret.txt", "folder": ""},
        "linked": {"op": "file", "path": "files/x.txt", "folder": ""},
        "renamed": {"op": "file_as", "path": str(secret), "name": "x.txt"},
        "registered": model("m", secret.parent),
        "the workspace": model("m", workspace.root),
        "a linked journal": metric("loss"),
    }[how]
    (folder / "pipeline.jsonl").write_bytes(line(operation))
    if how == "a linked journal":
        (workspace.journal / other.name).symlink_to(other)
    journal(workspace, "2-good", here, metric("loss"))
    said = []

    with pytest.raises(StageError, match="did not accept 1 of the journals"):
        upload(workspace, said.append)

    assert any("outside the workspace" in s or "a link to another folder" in s for s in said)
    assert sent_runs(here)["2-good"].data.metrics == {"loss": 0.5}
    kept = [f for f in (tmp_path / "mlflow").rglob("*") if f.is_file()]
    assert not any(b"CANARY" in f.read_bytes() for f in kept)


def test_an_unreachable_server_does_not_block_journals_for_another_one(here, workspace):
    journal(workspace, "1-away", "http://127.0.0.1:9", metric("loss"))
    journal(workspace, "2-good", here, metric("loss"))
    journal(workspace, "3-away", "http://127.0.0.1:9", metric("loss"))
    journal(workspace, "4-masked", "mysql://u:***@127.0.0.1:9/x", metric("loss"))

    with pytest.raises(StageError, match="MLflow is unreachable"):
        upload(workspace, print)

    assert list(sent_runs(here)) == ["2-good"]
    assert sorted(f.name for f in workspace.journal.iterdir()) == ["1-away", "3-away", "4-masked"]


def test_a_refused_record_is_sent_once_it_is_corrected_and_moved_back(here, workspace, tmp_path):
    journal(workspace, "run", here, model("a/b", bundle(tmp_path / "bundle")))
    shutil.rmtree(tmp_path / "bundle")
    with pytest.raises(StageError):
        upload(workspace, print)
    aside = workspace.journal / "refused" / "run"
    lines = aside / "pipeline.jsonl"
    lines.write_text(lines.read_text().replace("a/b", "ab"))
    os.replace(aside, workspace.journal / "run")
    assert upload(workspace, print) == 1
    assert MlflowClient(here).get_model_version("ab", "1").run_id == sent_runs(here)["run"].info.run_id


def test_a_journal_keeps_the_files_that_it_needs(here, workspace, tmp_path):
    log, made = tmp_path / "training.log", bundle(tmp_path / "artifacts" / "Format-Serving")
    log.write_text("it ran")
    operations = [
        {"op": "file", "path": str(log), "folder": "logs"},
        {"op": "file_as", "path": str(log), "name": "other/name.txt"},
    ]
    journal(workspace, "run", here, *operations, model("m", made))
    log.unlink()
    shutil.rmtree(tmp_path / "artifacts")
    assert upload(workspace, print) == 1
    client, run = MlflowClient(here), sent_runs(here)["run"].info.run_id
    assert [f.path for f in client.list_artifacts(run, "logs")] == ["logs/training.log"]
    assert [f.path for f in client.list_artifacts(run, "other")] == ["other/name.txt"]
    assert client.get_model_version("m", "1").status == "READY"
    assert not (workspace.journal / "run").exists()


def test_an_unreachable_server_sets_no_record_aside(workspace):
    journal(workspace, "1", "http://127.0.0.1:9", metric("loss"))
    with pytest.raises(StageError, match="MLflow is unreachable"):
        upload(workspace, print)
    assert not (workspace.journal / "refused").exists()
    assert (workspace.journal / "1" / "pipeline.jsonl").exists()


def test_during_a_run_a_refusal_is_reported_as_one_and_the_rest_is_sent_at_once(here, tmp_path, workspace):
    from switchyard.components import progress

    said = []
    progress.set_sink(said.append)
    experiment = tracking.ensure_experiment(here, "e", tmp_path / "files")
    run = tracking.Run(here, tracking.create_run(here, experiment, "r", {}), Journal(workspace.journal / "r", "pipeline"))
    try:
        found = run.register(model("a/b", bundle(tmp_path / "bundle"))["model"])
        run.metrics({"loss": 0.5})
    finally:
        progress.set_sink(None)
    assert found.status == "refused"
    assert "Invalid model name" in found.why
    assert not run.offline
    assert sent_runs(here)["r"].data.metrics == {"loss": 0.5}
    assert "MLflow refuses to register a/b: Invalid model name" in said[0]
    assert (workspace.journal / "r" / "pipeline.jsonl").read_text().count("\n") == 1


def test_an_experiment_that_was_deleted_ends_a_run_before_it_begins(here, workspace, tmp_path):
    client = tracking.client(here)
    client.delete_experiment(tracking.ensure_experiment(here, "e", tmp_path / "files"))
    config = load_config(None, document=DOCUMENT, overrides=[f"tracking.uri={here}", "tracking.experiment=e"])
    with pytest.raises(UserError, match=r"tracking\.experiment: 'e' is deleted in MLflow"):
        RunTracker(config, workspace, "run", "pytorch", None)


@pytest.mark.parametrize(
    "override",
    [
        *(
            f"serving.model_name={json.dumps(name)}"
            for name in ("a/b", "a:b", "a.b", "..", "a%b", 'a"b', "a'b", "a@b", " ", "", "a\nb")
        ),
        "serving.model_name=" + "m" * 242,
        *(f"tracking.experiment={json.dumps(name)}" for name in ("", "  ", "a\tb", "e" * 257)),
    ],
)
def test_names_that_mlflow_would_refuse_are_refused_before_the_run(override):
    with pytest.raises(UserError, match=override.split("=")[0].replace(".", r"\.")):
        load_config(None, document=DOCUMENT, overrides=[override])


_names = st.one_of(st.text(max_size=12), st.text("a.b/:%'\"@ _-é", max_size=6), st.text("m", min_size=230, max_size=520))


@given(_names)
def test_accepted_names_are_accepted_by_mlflow_too(name):
    try:
        config = load_config(
            None, document={**DOCUMENT, "serving": {"model_name": name}, "tracking": {"experiment": name}}, overrides=[]
        )
    except UserError:
        return
    _validate_model_name(config.model_name)
    _validate_logged_model_name(config.model_name)
    _validate_experiment_name(config.experiment)


def test_a_name_of_all_allowed_characters_is_registered(here, tmp_path):
    name = load_config(None, document={**DOCUMENT, "serving": {"model_name": "É a_b-c (1) \\ # ? & + ` $"}}).model_name
    experiment = tracking.ensure_experiment(here, name, tmp_path / "files")
    run = tracking.Run(here, tracking.create_run(here, experiment, "r", {}))
    assert run.register(model(name, bundle(tmp_path / "bundle"))["model"]).version == "1"
