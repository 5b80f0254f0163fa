"""`switchyard models verify`: a registered version's files and data, checked again in a real MLflow store."""

import json
from pathlib import Path

import pytest
from mlflow.utils.file_utils import local_file_uri_to_path

from switchyard.components.bundle.verification import check_version
from switchyard.components.data import source
from switchyard.components.ingest.images import fingerprint_with_images
from switchyard.components.ingest.sources import fingerprint
from switchyard.components.tracking import environment
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.environment import IMAGE, LOCK
from switchyard.components.tracking.manifest import write_manifest
from switchyard.components.tracking.model_registry import DATA, register_model
from switchyard.pipelines.commands.models import verify
from tests.command import free_port
from tests.registries import bundle_with_images, described, small_bundle


@pytest.fixture
def registered(tmp_path):
    """Returns URI, folder of the registered files and data file of version 1 of m."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = tracking.client(uri)
    experiment = client.create_experiment("e", artifact_location=(tmp_path / "files").as_uri())
    bundle, data = small_bundle(tmp_path, 1), tmp_path / "[rides].csv"
    (bundle / "weights").write_bytes(b"weights")
    data.write_text("a,b\n1,2\n")
    software = {LOCK: environment.lock(), IMAGE: environment.image()}
    tags = {"framework": "pytorch", **software, **source.tags_of([str(tmp_path / "*.csv")])}
    model = described(
        "m", bundle, digest=write_manifest(bundle), data=fingerprint([str(data)]), tags=tags, why="better than [bold]none[/bold]"
    )
    run = client.create_run(experiment, tags={"mlflow.source.git.commit": "12ab", "switchyard.git.uncommitted_changes": "yes"})
    assert register_model(client, run.info.run_id, model).version == "1"
    return uri, Path(local_file_uri_to_path(client.get_model_version_download_uri("m", "1"))), data


def outcomes(uri):
    return {c.what: c.outcome for c in check_version(tracking.client(uri), uri, "m", "1")}


def test_an_unchanged_version_passes_every_check(registered, capsys):
    uri, _, _ = registered
    same = ["manifest.json", "MLmodel", "weights", "data", "run", "packages", "promotion"]
    assert outcomes(uri) == {**dict.fromkeys(same, "same"), "image": "unknown"}
    assert verify(uri, "m", "champion", as_json=False) == 0
    printed = capsys.readouterr().out
    assert "m version 1 (champion)" in printed
    assert "better than [bold]none[/bold]" in printed
    assert "code commit 12ab with uncommitted changes" in printed
    assert "none: trained outside of a cluster" in printed


def test_another_commit_of_the_run_is_a_change_and_other_packages_than_here_are_none(registered):
    uri, _, _ = registered
    client = tracking.client(uri)
    client.set_tag(client.get_model_version("m", "1").run_id, "mlflow.source.git.commit", "34cd")
    client.set_model_version_tag("m", "1", LOCK, "sha256:00 of requirements.lock")
    checks = {c.what: c for c in check_version(client, uri, "m", "1")}
    assert checks["run"].outcome == "changed"
    assert "34cd with uncommitted changes, was 12ab with" in checks["run"].found
    assert checks["packages"].outcome == "unknown"
    assert "trained with sha256:00 of requirements.lock; here are" in checks["packages"].found


def test_changed_added_and_missing_files_and_changed_data_are_listed_and_end_with_code_1(registered, capsys):
    uri, folder, data = registered
    (folder / "weights").write_bytes(b"other")
    (folder / "added").write_bytes(b"")
    (folder / "MLmodel").unlink()
    data.write_text("a,b\n1,3\n")
    expected = {"added": "changed", "MLmodel": "changed", "weights": "changed", "data": "changed", "manifest.json": "same"}
    assert {k: v for k, v in outcomes(uri).items() if k in expected} == expected
    assert verify(uri, "m", "1", as_json=True) == 1
    found = {c["what"]: c["found"] for c in json.loads(capsys.readouterr().out)["checks"]}
    assert (found["added"], found["MLmodel"]) == ("was added: the manifest does not have it", "is missing")


def test_a_manifest_rewritten_with_the_files_is_not_the_registered_one(registered):
    uri, folder, _ = registered
    (folder / "weights").write_bytes(b"other")
    write_manifest(folder)
    assert outcomes(uri)["manifest.json"] == "changed"


def test_an_image_that_the_data_name_is_part_of_the_data(tmp_path, registered):
    uri, folder, data = registered
    data.write_text("a,b\nx.png,2\n")
    (tmp_path / "x.png").write_bytes(b"one")
    bundle_with_images(folder, "a")
    client = tracking.client(uri)
    client.set_model_version_tag("m", "1", DATA, fingerprint_with_images([str(data)], [str(tmp_path / "x.png")]))
    assert outcomes(uri)["data"] == "same"
    (tmp_path / "x.png").write_bytes(b"two")
    assert outcomes(uri)["data"] == "changed"


def test_a_damaged_record_of_the_data_hides_no_other_check(registered):
    uri, folder, _ = registered
    bundle_with_images(folder, "a")
    [record] = folder.rglob("dataset.json")
    record.write_text(record.read_text().replace('"csv": {}', '"csv": [1]'))
    found = outcomes(uri)
    assert (found["weights"], found["data"]) == ("same", "unknown")
    assert found["artifacts/bundle/data/dataset.json"] == "changed"


def test_a_link_in_the_registered_files_is_not_followed(registered):
    uri, folder, _ = registered
    (folder / "endless").symlink_to("/dev/zero")
    [check] = [c for c in check_version(tracking.client(uri), uri, "m", "1") if c.what == "files"]
    assert check.outcome == "changed"
    assert "endless" in check.found


@pytest.mark.parametrize("place", ["nothing listens", "no such folder"])
def test_a_store_that_does_not_answer_is_unreachable_and_not_a_changed_file(place, registered, monkeypatch, tmp_path, capsys):
    uri, _, _ = registered
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    listening = f"http://127.0.0.1:{free_port()}/api/2.0/mlflow-artifacts/artifacts/m"
    source = listening if place == "nothing listens" else (tmp_path / "unmounted").as_uri()
    tracking.client(uri).create_model_version("m", source)
    assert verify(uri, "m", "2", as_json=True) == 1
    [check] = [c for c in json.loads(capsys.readouterr().out)["checks"] if c["what"] == "files"]
    assert check["outcome"] == "unreachable"
    assert (listening if place == "nothing listens" else "unmounted is not there") in check["found"]


def test_data_that_is_gone_is_unknown_and_no_failure(registered):
    uri, _, data = registered
    data.unlink()
    assert outcomes(uri)["data"] == "unknown"
    assert verify(uri, "m", "1", as_json=True) == 0
