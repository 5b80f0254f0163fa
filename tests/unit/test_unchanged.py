"""What a run is given: how an unchanged run is known."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from switchyard.components.ingest.images import data_fingerprint
from switchyard.components.tracking.model_registry import DIGEST
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.config.stage_settings import input_spec
from switchyard.pipelines.runners.local import last_run
from switchyard.pipelines.runners.local.last_run import settings_digest
from switchyard.pipelines.workspace import Workspace

YAML = """
name: x
data: {path: d.csv}
label: y
task: binary
preprocessing: features.py
tokenizer: words.py
trainer: {model: model.py}
validation: {serving_sample: sample.csv}
"""


@pytest.fixture
def digest(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(YAML)
    for name in ("d.csv", "sample.csv"):
        (tmp_path / name).write_text("x,y\n1,0\n")
    (tmp_path / "features.py").write_text("import helper\n")
    (tmp_path / "helper.py").write_text("A = 1\n")
    (tmp_path / "model.py").write_text("B = 1\n")
    (tmp_path / "words.py").write_text("C = 1\n")

    def current(*overrides):
        return settings_digest(load_config(tmp_path / "pipeline.yaml", overrides=overrides), Workspace(tmp_path / "w"))

    return current


def test_the_digest_of_the_same_is_the_same(digest):
    assert digest() == digest()


def test_the_digest_changes_with_the_order_of_the_splits(digest):
    """Hash ranges, and the periods of windows, follow one another in this order."""
    assert digest("data.splits={train: 8, eval: 2}") != digest("data.splits={eval: 2, train: 8}")


class Registry:
    """A registry with one model, whose champion is version 1."""

    def __init__(self, digest):
        self._digest = digest

    def get_model_version(self, name, version):
        return SimpleNamespace(tags={DIGEST: self._digest})

    def get_experiment_by_name(self, name):
        return None


def outside(tmp_path, monkeypatch, digest):
    monkeypatch.setattr(last_run.tracking, "client", lambda uri: Registry(digest))
    monkeypatch.setattr(last_run, "aliases", lambda client, name: {"champion": "1"})
    return last_run._outside(load_config(tmp_path / "pipeline.yaml"), Workspace(tmp_path / "w"))


def test_a_champion_of_the_same_number_and_other_files_is_another_one(digest, tmp_path, monkeypatch):
    """As after a model was deleted and registered again."""
    assert outside(tmp_path, monkeypatch, "a") == outside(tmp_path, monkeypatch, "a") != outside(tmp_path, monkeypatch, "b")


@pytest.fixture
def last(digest, tmp_path, monkeypatch):
    """Returns a function that looks for the last run, of a workspace that has one."""
    config, workspace = load_config(tmp_path / "pipeline.yaml"), Workspace(tmp_path / "w")
    registry, gate = outside(tmp_path, monkeypatch, "a")
    data = data_fingerprint(input_spec(config))
    workspace.last_run.parent.mkdir(parents=True, exist_ok=True)
    workspace.last_run.write_text(json.dumps(asdict(last_run.LastRun(digest(), data, registry, gate, "r", "tensorflow", {}, {}))))
    return lambda: last_run.match(config, workspace, digest())


def test_the_last_run_is_found_while_nothing_changes_beside_a_fake_registry(last):
    assert last().run_id == "r"


def test_the_last_run_is_not_found_for_changed_data(last, tmp_path):
    (tmp_path / "d.csv").write_text("x,y\n2,0\n")
    assert last() is None


def test_the_last_run_is_not_found_after_the_champion_was_replaced_in_a_fake_registry(last, tmp_path, monkeypatch):
    outside(tmp_path, monkeypatch, "b")
    assert last() is None


@pytest.mark.parametrize("file", ["features.py", "helper.py", "model.py", "words.py", "sample.csv"])
def test_the_digest_changes_with_the_contents_of_a_file(digest, tmp_path, file):
    before = digest()
    (tmp_path / file).write_text((tmp_path / file).read_text() + "\n# more\n")
    assert digest() != before


@pytest.mark.parametrize("override", ["trainer.hyperparameters.seed=7", "evaluation.improvement=null", "tracking.uri=http://m:1"])
def test_the_digest_changes_with_a_setting(digest, override):
    assert digest(override) != digest()


def test_the_digest_changes_with_the_versions(digest, monkeypatch):
    before = digest()
    monkeypatch.setattr("switchyard.pipelines.runners.local.last_run.versions", lambda: ["tensorflow==0"])
    assert digest() != before
