"""Local files that a submitted pipeline reads from MLflow, so that a cluster's Workflow holds their names alone."""

import hashlib
from pathlib import Path

import pytest

from switchyard.components.errors import StageError, UserError
from switchyard.pipelines.api.compile import compile_for_cluster
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.kubeflow import uploaded_files
from switchyard.pipelines.runners.kubeflow.carried_files import carry, packed, unpack, unpacked
from switchyard.pipelines.runners.kubeflow.compiler import from_config
from switchyard.pipelines.runners.kubeflow.compiler.from_config import compile_config
from switchyard.pipelines.runners.kubeflow.compiler.workflow_size import workflow_size
from switchyard.pipelines.runners.kubeflow.uploaded_files import FileStore, fetch
from switchyard.pipelines.workspace import Workspace
from tests.command import BREAST_CANCER, free_port

IN_PODS = "kubeflow.defaults.environment.MLFLOW_TRACKING_URI=http://mlflow.mlflow:5000"


@pytest.fixture
def rows(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("a,diagnosis\n" + "".join(f"{i}.5,{'benign' if i % 2 else 'malignant'}\n" for i in range(2_000)))
    return file


@pytest.fixture
def unused(monkeypatch):
    """The address of a server that is not there, asked once."""
    monkeypatch.setattr(uploaded_files, "_PAUSES", ())
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def store(mlflow):
    return FileStore(mlflow, "uploads", lambda said: None)


@pytest.fixture
def in_task(mlflow, store, monkeypatch, tmp_path):
    """The environment of a task, on another machine than the pipeline's."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
    monkeypatch.setenv("SWITCHYARD_FILES", store._location())
    (tmp_path / "task").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "task"))


@pytest.mark.core
def test_an_uploaded_file_arrives_as_it_was(rows, mlflow, in_task):
    said = []
    stored = FileStore(mlflow, "uploads", said.append).upload([rows])
    carried = carry({rows: [rows]}, {}, stored)
    assert len(str(carried.contents)) < 250
    assert (unpack(carried.contents) / "rows.csv").read_bytes() == rows.read_bytes()
    assert FileStore(mlflow, "others", said.append).upload([rows]) == stored, "equal files give equal commands, wherever they are"
    assert all(s.startswith("1 file(s) of the pipeline, 30 kB, uploaded to mlflow-artifacts:") for s in said)


def test_an_uploaded_file_that_was_changed_is_refused(rows, mlflow, store, in_task, monkeypatch):
    monkeypatch.setattr(uploaded_files, "_PAUSES", (0,))
    [reference] = store.upload([rows]).values()
    digest = reference.removeprefix("stored:")
    rows.rename(rows.with_name(digest))
    rows.with_name(digest).write_text("a,diagnosis\n6.6,benign\n")
    uploaded_files._repository(store.location, mlflow).log_artifact(str(rows.with_name(digest)))
    with pytest.raises(StageError, match="changed after the pipeline was submitted; submit the pipeline again"):
        fetch(reference)


def test_a_missing_file_is_named_with_the_fix(mlflow, in_task):
    [reference] = [f"stored:{'0' * 64}"]
    with pytest.raises(StageError, match=rf"cannot read this file.*pods reach MLflow at {mlflow} .*submit the pipeline again"):
        fetch(reference)


def test_a_file_that_another_submit_is_writing_is_read_again(monkeypatch):
    whole = b"a,diagnosis\n1.5,benign\n"
    partial = [whole[:7], whole]
    monkeypatch.setattr(uploaded_files, "_PAUSES", (0,))
    monkeypatch.setattr(uploaded_files, "_read", lambda location, name: partial.pop(0))
    monkeypatch.setenv("SWITCHYARD_FILES", "s3://bucket/my folder")
    assert fetch(f"stored:{hashlib.sha256(whole).hexdigest()}") == whole


def test_a_task_without_the_place_of_the_uploaded_files_says_so(monkeypatch):
    monkeypatch.delenv("SWITCHYARD_FILES", raising=False)
    with pytest.raises(StageError, match="SWITCHYARD_FILES, which says where, is not set; submit the pipeline again"):
        fetch(f"stored:{'0' * 64}")


def test_snapshots_of_other_code_stay_on_this_machine(tmp_path):
    """The workspace keeps the snapshots of earlier versions and of other pipelines."""
    other = tmp_path / "code" / "0123456789abcdef" / "model.py"
    other.parent.mkdir(parents=True)
    other.write_text("x = 1\n" * 5_000)
    offered = []

    class Store:
        def upload(self, files):
            offered.extend(files)
            return {}

    config = load_config(BREAST_CANCER, overrides=["task=binary"])
    compile_config(config, tmp_path / "code", str(tmp_path), {}, carry_data=True, uploads=Store())
    assert BREAST_CANCER.parent / "data.csv" in offered
    assert other not in offered


def test_a_text_that_resembles_a_reference_is_read_unchanged(tmp_path):
    reference = f"stored:{'0' * 64}"
    assert unpacked(packed(reference)) == reference
    (tmp_path / "note.txt").write_text(f"stored:{'0' * 64}")
    (tmp_path / "other.py").write_text("lzma+base85:x")
    carried = carry({tmp_path: sorted(tmp_path.iterdir())}, {})
    folder = unpack(carried.contents) / tmp_path.name
    assert [(folder / f.name).read_bytes() for f in sorted(tmp_path.iterdir())] == [
        f.read_bytes() for f in sorted(tmp_path.iterdir())
    ]


def test_files_that_mlflow_refuses_are_embedded_with_a_warning(rows, unused, tmp_path):
    said = []
    config = load_config(BREAST_CANCER, overrides=[f"data.path={rows}", "task=binary", "validation.schema=null"])
    made = compile_config(
        config, tmp_path / "code", str(tmp_path), {}, carry_data=True, uploads=FileStore(unused, "uploads", said.append)
    )
    assert "rows.csv': 'lzma+base85:" in made.source
    [warning] = said
    assert f"MLflow at {unused} does not store the pipeline's files" in warning
    assert "embedded in the pipeline instead" in warning


def test_data_that_neither_mlflow_nor_the_pipeline_can_carry_is_refused(unused, tmp_path):
    big = tmp_path / "big.csv"
    big.write_text("a,diagnosis\n" + "1.0,benign\n" * 60_000)
    config = load_config(BREAST_CANCER, overrides=[f"data.path={big}", "task=binary"])
    uploads = FileStore(unused, "uploads", print)
    with pytest.raises(UserError, match=r"the limit for a compiled pipeline is 400,000 \(submit uploads 50,000,000 to MLflow"):
        compile_config(config, tmp_path / "code", str(tmp_path), {}, carry_data=True, uploads=uploads)


def test_data_that_is_too_large_to_embed_is_uploaded(mlflow, tmp_path):
    big = tmp_path / "big.csv"
    big.write_text("a,diagnosis\n" + "1.0,benign\n2.0,malignant\n" * 30_000)
    config = load_config(BREAST_CANCER, overrides=[f"data.path={big}", "task=binary", "validation.schema=null"])
    uploads = FileStore(mlflow, "uploads", print)
    made = compile_config(config, tmp_path / "code", str(tmp_path), {}, carry_data=True, uploads=uploads)
    assert hashlib.sha256(big.read_bytes()).hexdigest() in made.source
    assert len(made.source) < 20_000


def submitted(mlflow, tmp_path, *overrides):
    """Returns the example as `submit` sends it: with the run's record and MLflow's address."""
    given = ["kubeflow.image=registry.example.org/switchyard:1", *([f"tracking.uri={mlflow}", IN_PODS] if mlflow else [])]
    config = load_config(BREAST_CANCER, overrides=[*given, *overrides])
    compiled, _, _ = compile_for_cluster(config, Path(BREAST_CANCER), Workspace(tmp_path), progress=False, upload=True)
    return compiled


@pytest.mark.core
def test_the_example_is_submitted_within_the_size_that_keeps_its_progress_visible(mlflow, tmp_path):
    compiled = submitted(mlflow, tmp_path)
    assert workflow_size(compiled.spec, compiled.platform).total <= 300_000
    assert "drive-ingest" not in compiled.spec["root"]["dag"]["tasks"]
    assert len(compiled.spec["root"]["dag"]["tasks"]) == 4
    places = {e["value"] for x in containers(compiled) for e in x["env"] if e["name"] == "SWITCHYARD_FILES"}
    assert [p.rpartition("/")[2] for p in places] == ["switchyard-files"]


def test_an_address_of_mlflow_in_a_secret_is_the_only_one_that_tasks_have(mlflow, tmp_path):
    compiled = submitted("", tmp_path, f"tracking.uri={mlflow}", "kubeflow.defaults.secrets.MLFLOW_TRACKING_URI=mlflow/uri")
    assert not [e for x in containers(compiled) for e in x["env"] if e["name"] == "MLFLOW_TRACKING_URI"]
    assert "MLFLOW_TRACKING_URI" in str(compiled.platform)


def test_the_example_with_data_in_an_object_store_is_submitted_in_little_more(mlflow, tmp_path):
    compiled = submitted(mlflow, tmp_path, "data.path=gs://bucket/data.csv", "task=binary")
    assert workflow_size(compiled.spec, compiled.platform).total <= 310_000


def test_a_workflow_that_is_large_for_the_data_in_it_is_announced_with_what_makes_it_small(tmp_path):
    with pytest.warns(UserWarning, match=r"about 5\d\d kB of at most 900, .*tracking.uri names an MLflow server"):
        submitted("", tmp_path)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:5000",
        "http://localhost:5000",
        "http://localhost.:5000",
        "http://[::1]:5000",
        "http://[::ffff:127.0.0.1]:5000",
        "http://0.0.0.0:5000",
    ],
)
def test_an_address_of_mlflow_that_pods_would_look_for_in_themselves_is_refused_before_anything_is_sent(address, tmp_path):
    said = r"tracking.uri: .* an address of this machine.*set kubeflow.defaults.environment.MLFLOW_TRACKING_URI"
    with pytest.raises(UserError, match=said):
        submitted("", tmp_path, f"tracking.uri={address}")
    assert not (tmp_path / "code").exists()


def test_code_that_is_too_large_to_upload_is_refused_with_what_takes_the_room(tmp_path, monkeypatch):
    monkeypatch.setattr(from_config, "_MOST_UPLOADED", 100_000)
    (tmp_path / "words.txt").write_text("word\n" * 30_000)
    (tmp_path / "model.py").write_text("def build_model(spec):\n    return None\n")
    config = load_config(
        BREAST_CANCER, overrides=["task=binary", f"trainer.model={tmp_path / 'model.py'}", f"files=[{tmp_path}/words.txt]"]
    )
    with pytest.raises(UserError, match=r"files: .* hold 15\d,\d+ bytes; .* Largest: words.txt \(150,000\).*kubeflow.image"):
        compile_config(config, tmp_path / "code", str(tmp_path), {}, carry_data=True)


def containers(compiled):
    return [e["container"] for e in compiled.spec["deploymentSpec"]["executors"].values() if "container" in e]
