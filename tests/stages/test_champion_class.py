"""What `compile` asks the registry that the config names: which class of the champion's is the positive one."""

import pytest

from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.model_registry import CHAMPION, POSITIVE_CLASS
from switchyard.pipelines.api.compile import _checked
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.workspace import Workspace
from tests.command import free_port

ROWS = "x,y\n" + "".join(f"{i},{'bad' if i % 10 < 3 else 'good'}\n" for i in range(100))


@pytest.fixture
def project(tmp_path):
    (tmp_path / "d.csv").write_text(ROWS)
    (tmp_path / "pipeline.yaml").write_text("name: loans\nlabel: y\ndata: {path: d.csv}\ntrainer: {framework: pytorch}\n")
    return tmp_path


def checked(project, uri, *overrides):
    told = []
    config = load_config(project / "pipeline.yaml", overrides=[f"tracking.uri={uri}", *overrides])
    return _checked(config, Workspace(project / "w"), told.append), told


def test_a_compiled_pipeline_keeps_the_champions_positive_class_if_the_other_one_is_rarer(project):
    uri = f"sqlite:///{project / 'mlflow.db'}"
    client = tracking.client(uri)
    client.create_registered_model("loans")
    client.create_model_version("loans", str(project), tags={POSITIVE_CLASS: "good"})
    client.set_registered_model_alias("loans", CHAMPION, "1")
    assert [c.positive_class for c, _ in (checked(project, uri), checked(project, uri, "positive_class=bad"))] == ["good", "bad"]


def test_an_unreachable_registry_is_reported_if_the_positive_class_depends_on_its_champion(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config, [told] = checked(project, f"http://127.0.0.1:{free_port()}")
    assert config.positive_class is None
    assert told.startswith("warning: the registry did not return the champion")
    assert "set positive_class to choose it" in told
    assert checked(project, f"http://127.0.0.1:{free_port()}", "positive_class=bad")[1] == []
