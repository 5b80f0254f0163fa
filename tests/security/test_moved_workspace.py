"""A workspace that is copied or moved: it never touches its original, and works where it now lies, with the original gone."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections import OrderedDict
from pathlib import Path

import pytest
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2
from mlflow.tracking._tracking_service import utils as mlflow_utils

from switchyard.components.bundle.source import ModelRef
from switchyard.components.errors import UserError
from switchyard.components.serving.drift_report import ServedDrift
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking import workspace_location, workspace_rewrite
from switchyard.components.tracking.journal import HEADER, process_identity
from switchyard.components.tracking.mlflow_errors import is_denial, refusal
from switchyard.components.tracking.workspace_location import settle_in
from switchyard.pipelines.commands.drift import _recorded
from switchyard.pipelines.commands.models import show
from switchyard.pipelines.runners.local.metadata import LockedMetadata
from switchyard.pipelines.workspace import Workspace, find_workspace
from tests.command import BREAST_CANCER

SERVER = "http://127.0.0.1:9"


def contents(folder):
    """Path -> (digest, time of the last change), for everything below a folder."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {p: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


def metadata_store_of(root):
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(Workspace(root).metadata)
    return metadata_store.MetadataStore(config)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """What a run leaves, in small: MLflow's and ML Metadata's databases, a registered version, the last run."""
    root = tmp_path_factory.mktemp("it is 100% ü") / ".switchyard"
    place = Workspace(root)
    place.create()
    client = tracking.client(place.mlflow_uri)
    experiment = tracking.ensure_experiment(place.mlflow_uri, "e", place.mlflow_artifacts)
    run = tracking.create_run(place.mlflow_uri, experiment, "r", {})
    client.log_text(run, "of the original", "note.txt")
    artifact = place.artifacts / "training" / "model" / "8"
    artifact.mkdir(parents=True)
    client.create_registered_model("m")
    client.create_model_version("m", client.get_run(run).info.artifact_uri, run, tags={"switchyard.model_uri": str(artifact)})
    client.set_registered_model_alias("m", "champion", "1")
    store = metadata_store_of(root)
    kind = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="Model"))
    store.put_artifacts([metadata_store_pb2.Artifact(type_id=kind, uri=str(artifact), name="a")])
    (root / "kubeflow" / ".kfp_cache").mkdir(parents=True)
    (root / "kubeflow" / ".kfp_cache" / "key.json").write_text(json.dumps({"uri": str(artifact)}))
    place.last_run.write_text(json.dumps({"outputs": {"training": {"model": str(artifact)}}}))
    return root


@pytest.fixture
def original(template, tmp_path):
    """The template at a place of the test's own, opened there, with journals."""
    root = tmp_path / "a" / ".switchyard"
    shutil.copytree(template, root)
    settle_in(root)
    place = Workspace(root)
    artifact = place.artifacts / "training" / "model" / "8"
    for name, uri in (("to-a-server", SERVER), ("to-a-file", place.mlflow_uri), ("refused/by-a-server", SERVER)):
        folder = place.journal / name
        folder.mkdir(parents=True)
        header = {"uri": uri, "artifacts": str(place.mlflow_artifacts), "runs": {}, "new": {}, "pid": None, "pid_since": None}
        (folder / HEADER).write_text(json.dumps(header))
        (folder / "training.jsonl").write_text(json.dumps({"op": "file", "path": f"{artifact}/x"}) + '\n{"op": "cut sh')
    return root


@pytest.fixture(autouse=True)
def _another_process(monkeypatch):
    """MLflow remembers where a run's files lie for as long as a process lives, by the run alone."""
    monkeypatch.setattr(mlflow_utils, "_artifact_repos_cache", OrderedDict())


def copy_of(root):
    copy = root.parent.parent / "b" / ".switchyard"
    shutil.copytree(root, copy, copy_function=shutil.copy2)
    return copy


def moved(root):
    there = root.parent.parent / "c d" / ".switchyard"
    there.parent.mkdir()
    return root.rename(there)


def texts_naming(folder, root):
    """Every text in the workspace's databases and files of its own that names a folder."""
    found = []
    for name in ("mlflow.db", "metadata.sqlite"):
        with sqlite3.connect(root / name) as database:
            found += [line for line in database.iterdump() if str(folder) in line or folder.as_uri() in line]
    files = [root / "state" / "last_run.json", *(f for f in root.glob("tracking/**/*") if f.is_file())]
    return found + [str(f) for f in files if str(folder) in f.read_text()]


@pytest.mark.core
@pytest.mark.parametrize("arrive", [copy_of, moved])
def test_nothing_in_a_moved_workspace_names_its_old_place(original, arrive):
    there = arrive(original)
    assert texts_naming(original, there)

    settle_in(there)

    assert texts_naming(original, there) == []
    assert not list(there.rglob(".kfp_cache/*"))
    [artifact] = metadata_store_of(there).get_artifacts()
    assert Path(artifact.uri) == there / "artifacts" / "training" / "model" / "8"


@pytest.mark.core
def test_a_copy_writes_only_to_itself(original):
    copy = find_workspace(copy_of(original), None)
    before = contents(original)
    place = Workspace(copy)
    client = tracking.client(place.mlflow_uri)

    experiment = tracking.ensure_experiment(place.mlflow_uri, "e", place.mlflow_artifacts)
    run = tracking.create_run(place.mlflow_uri, experiment, "r", {})
    client.log_text(run, "of the copy", "note.txt")
    old = client.search_runs([experiment])[-1].info.run_id
    client.log_text(old, "added by the copy", "added.txt")

    assert contents(original) == before
    assert (copy / "mlflow" / run / "artifacts" / "note.txt").exists()
    assert (copy / "mlflow" / old / "artifacts" / "added.txt").exists()


@pytest.mark.core
@pytest.mark.parametrize("arrive", [copy_of, moved])
def test_the_champion_is_found_after_the_original_was_removed(original, arrive, capsys):
    there = arrive(original)
    shutil.rmtree(original, ignore_errors=True)
    place = Workspace(find_workspace(there, None))

    source = tracking.client(place.mlflow_uri).get_model_version_download_uri("m", "1")
    show(place.mlflow_uri, "m", as_json=True)

    assert source.startswith(there.as_uri())
    assert json.loads(capsys.readouterr().out)["versions"][0]["aliases"] == ["champion"]


def test_a_database_is_opened_by_its_uri_without_the_workspace(original):
    there = moved(original)

    client = tracking.client(f"sqlite:///{there / 'mlflow.db'}")

    assert client.get_experiment_by_name("e").artifact_location.startswith(there.as_uri())


def test_the_move_is_reported_once(original, capsys):
    there = moved(original)

    find_workspace(there, None)
    find_workspace(there, None)

    assert capsys.readouterr().err == f"workspace {there}: moved from {original}; its records now name this folder\n"


def test_a_copy_is_a_workspace_of_its_own_and_a_moved_one_is_the_same(original):
    def identity(root):
        return json.loads((root / "location.json").read_text())["id"]

    copy = copy_of(original)
    settle_in(copy)
    assert identity(copy) != identity(original)

    before = identity(original)
    there = moved(original)
    settle_in(there)
    assert identity(there) == before


def test_a_copy_of_a_copy_can_be_moved_back(original):
    copy = copy_of(original)
    settle_in(copy)
    shutil.rmtree(original)
    copy.rename(original)

    settle_in(original)

    assert texts_naming(copy, original) == []
    assert texts_naming(original, original)


@pytest.mark.parametrize("inner", ["deeper/.switchyard", ".switchyard/inner"])
def test_a_workspace_can_be_moved_below_its_old_place(original, inner, monkeypatch):
    """Where the new path begins with the old one, what is rewritten is not rewritten twice, killed in between or not."""
    there = original.parent / inner if inner.startswith("deeper") else original / "inner"
    shutil.copytree(original, original.parent / "for a moment")
    shutil.rmtree(original)
    shutil.copytree(original.parent / "for a moment", there)
    _killed_before_the_record(there, monkeypatch)

    settle_in(there)

    [artifact] = metadata_store_of(there).get_artifacts()
    assert Path(artifact.uri) == there / "artifacts" / "training" / "model" / "8"


def test_a_kill_during_the_rewrite_is_recovered(original, monkeypatch):
    there = moved(original)
    _killed_before_the_record(there, monkeypatch)

    settle_in(there)

    assert texts_naming(original, there) == []


def _killed_before_the_record(root, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(workspace_location, "_record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            settle_in(root)


def test_both_databases_are_rewritten_or_none(original, monkeypatch):
    there = moved(original)
    monkeypatch.setattr(workspace_rewrite, "_WAIT_SECONDS", 0.2)
    with sqlite3.connect(there / "mlflow.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="Stop other processes that use it"):
            settle_in(there)
        other.execute("ROLLBACK")

    assert [a.uri for a in metadata_store_of(there).get_artifacts()] == [str(original / "artifacts" / "training" / "model" / "8")]
    settle_in(there)
    assert texts_naming(original, there) == []


def test_a_workspace_moved_during_a_run_is_refused(original):
    folder = original / "tracking" / "now"
    folder.mkdir()
    (folder / HEADER).write_text(json.dumps({"uri": SERVER, "runs": {}, **process_identity()}))
    there = moved(original)

    with pytest.raises(UserError, match=rf"while a run writes to it \(process {os.getpid()}\)"):
        settle_in(there)


def test_a_workspace_can_be_copied_during_a_run(original):
    """The run is the original's: the copy is free to be used, and ends the run in its own database."""
    folder = original / "tracking" / "now"
    folder.mkdir()
    (folder / HEADER).write_text(json.dumps({"uri": Workspace(original).mlflow_uri, "runs": {}, **process_identity()}))
    copy = copy_of(original)

    settle_in(copy)

    header = json.loads((copy / "tracking" / "now" / HEADER).read_text())
    assert header["pid"] is None
    assert header["uri"] == Workspace(copy).mlflow_uri


def test_pending_records_are_sent_only_by_the_original(original):
    copy = copy_of(original)
    settle_in(copy)
    assert journals(copy) == ["to-a-file"]
    assert journals(original) == ["refused/by-a-server", "to-a-file", "to-a-server"]

    there = moved(original)
    settle_in(there)
    assert journals(there) == ["refused/by-a-server", "to-a-file", "to-a-server"]


def journals(root):
    return sorted(str(h.parent.relative_to(root / "tracking")) for h in (root / "tracking").rglob(HEADER))


def test_a_line_truncated_by_a_kill_is_unchanged(original):
    there = moved(original)

    settle_in(there)

    first, rest = (there / "tracking" / "to-a-server" / "training.jsonl").read_text().split("\n")
    assert json.loads(first)["path"].startswith(str(there))
    assert rest == '{"op": "cut sh'


@pytest.mark.parametrize("arrive", [copy_of, moved])
def test_a_workspace_of_an_older_version_without_a_recorded_place_is_moved(original, arrive):
    (original / "location.json").unlink()
    there = arrive(original)

    settle_in(there)

    assert texts_naming(original, there) == []


@pytest.mark.parametrize("known", [True, False])
def test_a_workspace_moved_to_a_read_only_place_is_read_with_the_mode_mocked(original, known, monkeypatch):
    if not known:
        (original / "location.json").unlink()
    there = moved(original)
    monkeypatch.setattr(workspace_location.os, "access", lambda *_: False)

    with pytest.raises(UserError, match=r"contain that path but are not writable\. Make it writable, copy it"):
        settle_in(there)


@pytest.fixture
def archive(original):
    """The workspace on a file system that is mounted read-only."""
    mounted = subprocess.run(["mount", "--bind", original, original], check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    subprocess.run(["mount", "-o", "remount,ro,bind", original], check=True)
    yield original
    subprocess.run(["umount", "--lazy", original], check=True)


def test_a_workspace_on_a_read_only_mount_is_read(archive, capsys):
    place = Workspace(find_workspace(archive, None))

    show(place.mlflow_uri, "m", as_json=True)

    assert json.loads(capsys.readouterr().out)["versions"][0]["aliases"] == ["champion"]


@pytest.mark.parametrize("how", ["restored", "deleted"])
def test_no_execution_writes_into_a_folder_of_a_newer_state_than_its_database(original, how):
    """Else the rows of two runs would lie in one folder, and a checkpoint of other data would be resumed."""
    place = Workspace(original)
    if how == "deleted":
        place.metadata.unlink()
    for folder in ("ingest/examples/7", "training/.system/executor_execution/12", "training/model/notes"):
        (place.artifacts / folder).mkdir(parents=True)
    metadata = LockedMetadata(place.metadata, place.metadata_lock)

    def new_execution():
        with metadata as handle:
            kind = handle.store.put_execution_type(metadata_store_pb2.ExecutionType(name="Stage"))
            return handle.store.put_executions([metadata_store_pb2.Execution(type_id=kind)])[0]

    metadata.skip_ids_of(place.artifacts)
    assert [new_execution(), new_execution()] == [13, 14]
    metadata.skip_ids_of(place.artifacts)
    assert new_execution() == 15


def test_drift_on_a_read_only_mount_is_reported_though_not_recorded(archive, capsys):
    found = ServedDrift(rows=1, distances=[], findings=[], missing=[], statistics={})

    assert _recorded(ModelRef(Workspace(archive).mlflow_uri, "m", "champion"), "1", found) is None

    assert "not recorded: " in (said := capsys.readouterr().err)
    assert "its database is read-only" in said


def test_what_writes_to_a_read_only_mount_is_refused_with_the_reason(archive):
    place = Workspace(find_workspace(archive, None))
    experiment = tracking.client(place.mlflow_uri).get_experiment_by_name("e").experiment_id

    with pytest.raises(UserError, match=r"cannot write to it: Read-only file system\. Choose another with --workspace"):
        place.create()
    with pytest.raises(Exception, match="readonly database") as refused:
        tracking.create_run(place.mlflow_uri, experiment, "r", {})
    assert is_denial(refused.value)
    assert "its database is read-only. Make it writable, copy its workspace" in refusal("", refused.value)


@pytest.mark.parametrize("how", ["-rl", "-rs"])
def test_a_copy_made_of_links_has_its_own_databases(original, how):
    before = contents(original)
    copy = original.parent.parent / "b" / ".switchyard"
    copy.parent.mkdir()
    subprocess.run(["cp", how, original, copy], check=True)

    settle_in(copy)

    assert contents(original) == before
    assert texts_naming(original, copy) == []


@pytest.mark.parametrize("record", ["", "[]", '{"root": 5, "id": "x"}', '{"root": "here", "id": "x"}', '{"root": "/"}'])
def test_a_damaged_record_of_the_place_counts_as_none(original, record):
    there = moved(original)
    (there / "location.json").write_text(record)

    settle_in(there)

    assert texts_naming(original, there) == []
    assert json.loads((there / "location.json").read_text())["root"] == str(there)


def test_a_workspace_can_be_moved_to_a_place_that_a_database_uri_escapes(original, tmp_path):
    there = tmp_path / "what? 100%25 [#1]"
    shutil.move(original, there)

    settle_in(there)

    assert texts_naming(original, there) == []
    client = tracking.client(Workspace(there).mlflow_uri)
    experiment = client.get_experiment_by_name("e")
    [run] = client.search_runs([experiment.experiment_id])
    assert Path(client.download_artifacts(run.info.run_id, "note.txt", str(tmp_path))).read_text() == "of the original"
    assert {p.name for p in tmp_path.iterdir()} == {"a", there.name, "note.txt"}


def test_a_link_to_a_workspace_is_no_other_place(original, tmp_path):
    (tmp_path / "link").symlink_to(original.parent)
    before = contents(original)

    assert find_workspace(tmp_path / "link" / ".switchyard", None) == original

    assert contents(original) == before


def test_a_users_database_is_no_workspace_whatever_is_beside_it(tmp_path):
    sqlite3.connect(tmp_path / "metadata.sqlite").close()  # of a TFX pipeline's, say

    tracking.client(f"sqlite:///{tmp_path / 'own.db'}")

    assert not (tmp_path / "location.json").exists()


def test_files_are_written_beside_a_database_shared_by_several_workspaces(tmp_path):
    uri = f"sqlite:///{tmp_path / 'shared' / 'own.db'}"

    tracking.ensure_experiment(uri, "e", tmp_path / "w" / "mlflow")

    places = {e.name: e.artifact_location for e in tracking.client(uri).search_experiments()}
    beside = (tmp_path / "shared" / "mlflow").as_uri()
    assert places == {"e": beside, "Default": f"{beside}/0"}


@pytest.mark.timeout(900)
def test_a_pipeline_runs_in_a_copied_and_in_a_moved_workspace(tmp_path, warm):
    """The whole of it: run, `cp -r`, run the copy with other settings, `mv`, run again from the cache, predict."""
    quick = ["--set", "trainer.hyperparameters.epochs=2", "--set", "evaluation.improvement=null"]
    project = tmp_path / "original"
    shutil.copytree(BREAST_CANCER.parent, project, ignore=shutil.ignore_patterns(".switchyard"))  # of `make demo`
    warm.run(project / "pipeline.yaml", project / ".switchyard", *quick)
    before = contents(project)

    shutil.copytree(project, tmp_path / "copy", copy_function=shutil.copy2)
    other = ["--set", "trainer.hyperparameters.epochs=3", *quick[2:]]
    copied = warm.run(tmp_path / "copy" / "pipeline.yaml", tmp_path / "copy" / ".switchyard", *other)
    assert contents(project) == before
    assert {s for s, status in copied.stages.items() if status == "cached"} >= {"ingest", "statistics", "transform"}
    assert copied.stages["training"] == "ran"

    shutil.rmtree(project)
    there = (tmp_path / "copy").rename(tmp_path / "moved")
    again = warm.run(there / "pipeline.yaml", there / ".switchyard", *other)
    assert again.stages["training"] == again.stages["transform"] == again.stages["ingest"] == "cached"
    listed = warm("models", "list", "--workspace", there / ".switchyard", "--json")
    assert [v["version"] for v in json.loads(listed.stdout.splitlines()[0])["versions"]] == ["1", "2"]
    output = tmp_path / "scores.csv"
    predicted = warm(
        *("predict", "breast_cancer@champion", there / "data.csv", "-o", output, "--workspace", there / ".switchyard")
    )
    assert predicted.code == 0, predicted.stderr
    assert len(output.read_text().splitlines()) == 570
