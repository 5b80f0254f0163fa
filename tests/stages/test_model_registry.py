"""The registry's aliases under promotion and rollback, in a real MLflow store."""

import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.utils.file_utils import local_file_uri_to_path

from switchyard.components.errors import UserError
from switchyard.components.tracking import promotion_lock
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.model_registry import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    alias_version,
    moves,
    promote,
    register_model,
    rollback,
    versions,
)
from tests.registries import small_model

pytestmark = pytest.mark.core


@pytest.fixture
def client(tmp_path):
    return tracking.client(f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture
def run_id(client, tmp_path):
    experiment = client.create_experiment("e", artifact_location=(tmp_path / "files").as_uri())
    return client.create_run(experiment).info.run_id


def test_promotion_and_rollback_are_recorded(client, run_id, tmp_path):
    first = register_model(client, run_id, small_model(tmp_path, 1))
    assert (first.status, first.version) == ("champion", "1")
    second = register_model(client, run_id, small_model(tmp_path, 2, compared_with="1", why="auc +0.1"))
    assert (second.status, alias_version(client, "m", PREVIOUS)) == ("champion", "1")
    back = rollback(client, "m", why="it is slow")
    assert (back.version, back.before) == ("1", "2")
    assert (alias_version(client, "m", CHAMPION), alias_version(client, "m", PREVIOUS)) == ("1", "2")
    history = [(m.action, m.before, m.version, m.why, m.run_id) for m in moves(client, "m")]
    assert history == [
        ("promote", None, "1", "better", run_id),
        ("promote", "1", "2", "auc +0.1", run_id),
        ("rollback", "2", "1", "it is slow", run_id),
    ]
    assert all(m.who and m.at and m.metrics == {"auc": 0.9} for m in moves(client, "m"))


def test_metrics_of_many_labels_of_any_name_are_registered(client, run_id, tmp_path):
    each = {f"{name}/price of {i} ($)": 0.5 for name in ("auc", "loss", "accuracy") for i in range(400)}
    metrics = {"auc": 0.9, **each, "example_count": 10.0}
    stage = client.create_run(client.get_run(run_id).info.experiment_id).info.run_id
    model = small_model(tmp_path, 1, metrics=metrics, measured_in=stage, dataset=("test", "d"))
    assert register_model(client, run_id, model).version == "1"
    assert len(client.get_run(stage).data.metrics) == len(metrics)
    [version] = versions(client, "m")
    assert version.metrics == {"auc": 0.9, "example_count": 10.0}
    assert moves(client, "m")[0].metrics == version.metrics


def test_the_same_bundle_is_one_version(client, run_id, tmp_path):
    model = small_model(tmp_path, 1)
    assert register_model(client, run_id, model).version == "1"
    again = register_model(client, run_id, {**model, "compared_with": "1"})
    assert (again.status, again.version) == ("champion", "1")
    assert len(moves(client, "m")) == 1


def test_a_model_whose_files_were_copied_in_part_is_copied_again(client, run_id, tmp_path, monkeypatch):
    """On a full disk, or killed: what was there of it became the champion, and every later run ended at its digest."""
    model = small_model(tmp_path, 1)
    (Path(model["bundle"]) / "weights").write_bytes(bytes(100))

    def copied_in_part(logged_id, folder):
        (tmp_path / "half").mkdir()
        (tmp_path / "half" / "weights").write_bytes(bytes(50))
        MlflowClient.log_model_artifacts(client, logged_id, str(tmp_path / "half"))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(client, "log_model_artifacts", copied_in_part)
        with pytest.raises(OSError, match="No space"):
            register_model(client, run_id, model)

    assert register_model(client, run_id, model).status == "champion"
    source = client.get_model_version("m", "1").source
    assert (Path(local_file_uri_to_path(source)) / "weights").read_bytes() == bytes(100)


def test_a_blessing_is_valid_only_against_the_champion_that_it_was_compared_with(client, run_id, tmp_path):
    for number, compared in ((1, None), (2, "1")):
        register_model(client, run_id, small_model(tmp_path, number, compared_with=compared))
    late = register_model(client, run_id, small_model(tmp_path, 3, compared_with="1"))
    assert (late.status, late.champion) == ("challenger", "2")
    assert "m: the champion was version 1 when version 3 was evaluated and is version 2 now" in late.why
    assert alias_version(client, "m", CHALLENGER) == "3"


def test_a_model_that_failed_is_not_registered_and_an_unblessed_one_is_no_champion(client, run_id, tmp_path):
    assert register_model(client, run_id, small_model(tmp_path, 1, passed=False, blessed=False)).version is None
    kept = register_model(client, run_id, small_model(tmp_path, 2, blessed=False))
    assert (kept.status, kept.champion) == ("challenger", None)
    with pytest.raises(UserError, match="was not blessed"):
        promote(client, "m", kept.version, why="I like it")
    assert promote(client, "m", kept.version, why="I like it", force=True).version == kept.version
    assert alias_version(client, "m", CHALLENGER) is None
    with pytest.raises(UserError, match="nothing to roll back to"):
        rollback(client, "m", why="no")


def test_a_lock_left_by_a_kill_is_broken(client, run_id, tmp_path, monkeypatch):
    register_model(client, run_id, small_model(tmp_path, 1))
    client.create_registered_model("m.promotion-lock")
    monkeypatch.setattr(promotion_lock, "_STALE_SECONDS", 0.5)
    started = time.monotonic()
    register_model(client, run_id, small_model(tmp_path, 2, compared_with="1"))
    assert time.monotonic() - started > 0.4
    assert alias_version(client, "m", CHAMPION) == "2"


def test_a_lock_released_while_mlflow_reads_it_is_taken_with_a_mocked_answer(client, run_id, tmp_path, monkeypatch):
    """MLflow 3.17's store finds the name taken, reads who has it, and finds nothing: 60 of 2,400 times with four processes."""
    create, answers = client.create_registered_model, [MlflowException("not found", RESOURCE_DOES_NOT_EXIST)]

    def made(name, **more):
        if name == "m.promotion-lock" and answers:
            raise answers.pop()
        return create(name, **more)

    monkeypatch.setattr(client, "create_registered_model", made)
    assert register_model(client, run_id, small_model(tmp_path, 1)).status == CHAMPION
    assert answers == []


def test_an_unreachable_server_is_not_an_empty_registry():
    with pytest.raises(MlflowException, match="Connection refused"):
        alias_version(tracking.client("http://127.0.0.1:9"), "m", CHAMPION)


def test_a_registered_model_that_switchyard_did_not_make_is_left_alone(client, run_id, tmp_path):
    client.create_registered_model("m")
    client.create_model_version("m", "/theirs")
    client.set_registered_model_alias("m", CHAMPION, "1")
    for move in (
        lambda: register_model(client, run_id, small_model(tmp_path, 1)),
        lambda: promote(client, "m", "1", why="x", force=True),
        lambda: rollback(client, "m", why="x"),
    ):
        with pytest.raises(UserError, match="was not created by Switchyard"):
            move()
    assert alias_version(client, "m", CHAMPION) == "1"
    assert len(client.search_model_versions("name = 'm'")) == 1
    assert moves(client, "m") == []


def test_an_empty_registered_model_is_used(client, run_id, tmp_path):
    client.create_registered_model("m")
    assert register_model(client, run_id, small_model(tmp_path, 1)).status == CHAMPION


def test_a_champion_set_without_switchyard_is_compared_and_recorded_in_the_history(client, run_id, tmp_path):
    register_model(client, run_id, small_model(tmp_path, 1))
    register_model(client, run_id, small_model(tmp_path, 2, blessed=False))
    client.set_registered_model_alias("m", CHAMPION, "2")
    late = register_model(client, run_id, small_model(tmp_path, 3, compared_with="1"))
    assert late.status == "challenger"
    promote(client, "m", "3", why="looked at")
    assert [(m.action, m.before, m.version, m.why) for m in moves(client, "m")] == [
        ("promote", None, "1", "better"),
        ("outside", "1", "2", "the alias was set without Switchyard"),
        ("promote", "2", "3", "looked at"),
    ]


def test_a_process_suspended_while_it_held_the_lock_moves_no_alias(client, run_id, tmp_path):
    register_model(client, run_id, small_model(tmp_path, 1))
    with promotion_lock.locked(client, "m") as check:
        # Another found it stale, and holds one of its own.
        client.delete_registered_model("m.promotion-lock")
        client.create_registered_model("m.promotion-lock", tags={"switchyard.lock": "another's"})
        with pytest.raises(UserError, match="lost its lock"):
            check()
    assert client.get_registered_model("m.promotion-lock").tags == {"switchyard.lock": "another's"}
