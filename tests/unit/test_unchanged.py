"""What a run is given: the digest by which an unchanged run is known."""

import pytest

from switchyard.pipelines.config.load import load_config
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
