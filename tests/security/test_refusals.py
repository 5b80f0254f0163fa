"""MLflow that refuses is not MLflow that is away: the reason is said, and a registration that is lost is no success."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from switchyard.components.errors import EXIT_BAD_INPUT, StageError, UserError
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.journal import Journal, noted
from switchyard.components.tracking.model_registry import DEFERRED, REFUSED
from switchyard.pipelines.cli import main
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.outcome import run_result
from switchyard.pipelines.runners.tracking.runs import RunTracker, left_behind
from switchyard.pipelines.runners.tracking.upload import upload
from switchyard.pipelines.workspace import Workspace
from tests.refusing_server import refusing_proxy
from tests.security.test_journals import journal, metric, model

pytestmark = pytest.mark.core
DOCUMENT = {"name": "x", "data": {"path": "a.csv"}, "label": "y"}


@pytest.fixture(autouse=True)
def _few_tries(monkeypatch):
    for name, value in tracking._PATIENCE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(tracking, "_clients", {})


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "w")


def tracker(uri, workspace):
    config = load_config(None, document=DOCUMENT, overrides=[f"tracking.uri={uri}"])
    return RunTracker(config, workspace, "run", "pytorch", None)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "denies access: .*401.*MLFLOW_TRACKING_USERNAME"),
        (403, "denies access: .*403"),
        (429, "accepts no more data: .*429.*try again later"),
        (507, "accepts no more data: .*507"),
        (413, "refuses: .*413"),
    ],
)
def test_a_server_that_refuses_ends_a_run_before_its_first_stage_with_the_reason(status, words, workspace):
    with (
        refusing_proxy(lambda method, path: status) as uri,
        pytest.raises(UserError, match=rf"tracking\.uri: .* {words}"),
    ):
        tracker(uri, workspace)
    assert not workspace.journal.exists(), "there is nothing to send"


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_that_fails_counts_as_unreachable(status, workspace):
    with refusing_proxy(lambda method, path: status) as uri:
        found = tracker(uri, workspace)
    assert found.offline
    assert found.refused is None
    assert "was unreachable" in left_behind(workspace, found.refused)


@pytest.mark.parametrize(("status", "became"), [(403, REFUSED), (413, REFUSED), (503, DEFERRED)])
def test_a_refused_registration_is_reported_and_kept(status, became, workspace, tmp_path):
    with refusing_proxy(lambda method, path: status) as uri:
        run = tracking.Run(uri, "0" * 32, Journal(workspace.journal / "r", "pipeline"))
        found = run.register(model("m", tmp_path)["model"])
    assert found.status == became
    assert (str(status) in found.why) == (became == REFUSED)
    assert '"register"' in (workspace.journal / "r" / "pipeline.jsonl").read_text()
    assert (noted(workspace.journal / "r") is not None) == (became == REFUSED)


def test_after_a_refused_record_a_stopped_server_counts_as_unreachable(workspace, tmp_path):
    with refusing_proxy(lambda method, path: 413) as uri:
        run = tracking.Run(uri, "0" * 32, Journal(workspace.journal / "r", "pipeline"))
        run.metrics({"loss": 0.5})
    assert run.register(model("m", tmp_path)["model"]).status == DEFERRED


def test_records_refused_in_a_stage_are_reported_at_the_end_of_the_run(workspace):
    said = left_behind(workspace, "MLflow at h denies access: 403.")
    assert "MLflow refused a part" in said
    assert "denies access: 403" in said
    assert "switchyard upload" in said


def test_a_blessed_model_that_is_not_registered_fails_the_run(tmp_path, monkeypatch):
    folder = tmp_path / "registration"
    folder.mkdir()
    (folder / "registration.json").write_text(json.dumps({"status": REFUSED, "why": "MLflow refuses: no room."}))
    monkeypatch.setattr("switchyard.pipelines.runners.outcome._evaluation", _blessed)
    found = run_result("x", "pytorch", _Tracker, [], {}, {"registry": {"registration": str(folder)}}, [])
    assert found.status == "not_registered"
    assert found.exit_code == EXIT_BAD_INPUT
    assert "MLflow refuses: no room." in found.error


class _Tracker:
    run_id = experiment_id = None


def _blessed(outputs):
    from types import SimpleNamespace

    return SimpleNamespace(blessed=True, best="pytorch", metrics={})


@pytest.mark.parametrize("arguments", [("models", "list"), ("models", "list", "m"), ("predict", "m@1", __file__, "-o", "o.csv")])
def test_commands_report_missing_authorization(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refusing_proxy(lambda method, path: 401) as uri:
        extra = ["--format", "csv"] if arguments[0] == "predict" else []
        done = CliRunner().invoke(main, [*arguments, *extra, "--tracking-uri", uri])
    assert done.exit_code == EXIT_BAD_INPUT, done.output
    assert "denies access" in done.output
    assert "Is the server up" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_upload_keeps_records_that_the_account_may_not_send(workspace):
    with refusing_proxy(lambda method, path: 403) as uri:
        journal(workspace, "1", uri, metric("loss"))
        with pytest.raises(StageError, match="denies access"):
            upload(workspace, print)
    assert (workspace.journal / "1" / "pipeline.jsonl").exists()
    assert not (workspace.journal / "refused").exists()


def test_the_error_for_a_deleted_experiment_names_how_to_restore_it(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    number = tracking.ensure_experiment(uri, "e", tmp_path / "files")
    tracking.client(uri).delete_experiment(number)
    with pytest.raises(UserError, match=rf"mlflow experiments restore --experiment-id {number}"):
        tracking.ensure_experiment(uri, "e", tmp_path / "files")


def test_an_experiment_deleted_during_a_run_is_a_refusal(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    number = tracking.ensure_experiment(uri, "e", tmp_path / "files")
    run = tracking.Run(uri, tracking.create_run(uri, number, "r", {}), Journal(tmp_path / "j", "pipeline"))
    tracking.client(uri).delete_experiment(number)
    run.metrics({"loss": 0.5})
    assert not run.offline
    assert "active" in noted(Path(tmp_path / "j"))
