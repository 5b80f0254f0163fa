"""What a stage reads is what it was given: settings cross the border to the stages as JSON of their sections."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from switchyard.components.data_gate.config import DataGateSettings
from switchyard.components.training.settings import TrainerSettings
from switchyard.pipelines.config import stage_settings
from switchyard.pipelines.config.load import load_config

DOCUMENT = {
    "name": "x",
    "data": {"path": "d.csv", "missing_values": ["-"], "exclude": ["a"]},
    "label": "y",
    "validation": {"on_anomaly": {"features": {"b": "warn"}}, "drift": {"features": {"c": {"warn": 0.2, "fail": 1}}}},
    "evaluation": {
        "slices": ["b", ["b", "c"]],
        "thresholds": {"auc": {"lower_bound": 0.5, "per_slice": True}},
        "improvement": None,
    },
    "trainer": {
        "framework": "pytorch",
        "model": "model.py",
        "model_parameters": {"layers": [1, 2.5, "x", None]},
        "hyperparameters": {"class_weights": {"1": 2}, "early_stopping": None},
        "accelerator": "cpu:2",
        "deterministic": True,
    },
    "tune": {
        "space": {
            "learning_rate": {"low": 1e-4, "high": 1, "log": True},
            "batch_size": [32, 64],
            "model_parameters.a": [True, "x", 1.0],
        }
    },
}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text("def build_model(spec): ...\n")
    return load_config(None, document=DOCUMENT)


SETTINGS = {
    "data_gate": stage_settings.data_gate_settings,
    "evaluation": lambda config: stage_settings.evaluation_settings(config, Path("code")),
    "infra_validation": stage_settings.infra_validation_settings,
    "tuning": lambda config: stage_settings.tuning_settings(config, "tensorflow"),
}


@pytest.mark.parametrize("stage", SETTINGS)
def test_a_stage_reads_its_settings(config, stage):
    given = SETTINGS[stage](config)
    assert type(given).model_validate_json(given.model_dump_json(exclude_defaults=True)) == given


def test_a_changed_setting_that_a_framework_does_not_read_does_not_retrain_it(tmp_path):
    def settings(framework, **trainer):
        config = load_config(
            None, document={**DOCUMENT, "tune": None, "trainer": {"framework": framework, **trainer}}, base=tmp_path
        )
        return stage_settings.trainer_settings(config, tmp_path / "code", framework)

    epochs, trees = {"hyperparameters": {"epochs": 3}}, {"trees": {"leaves": 3}}
    for framework, read, unread in (("pytorch", epochs, trees), ("lightgbm", trees, epochs)):
        assert settings(framework) == settings(framework, **unread) != settings(framework, **read)


def test_training_reads_its_settings(config, tmp_path):
    given = stage_settings.trainer_settings(config, tmp_path / "code", "pytorch")
    read = TrainerSettings.model_validate_json(given.model_dump_json(exclude_defaults=True))
    assert read == given
    assert read.code.path.endswith("model.py")
    assert (read.accelerator.workers, read.accelerator.deterministic) == (2, True)


def test_the_data_gate_gets_the_other_settings_that_concern_the_data(config):
    given = stage_settings.data_gate_settings(config)
    assert (given.excluded, given.missing_values, given.comparable, given.curated) == (("a",), ("-",), 0.9, False)


def test_settings_of_another_version_are_refused():
    with pytest.raises(ValidationError, match="extra"):
        DataGateSettings.model_validate_json('{"version": "9", "unknown": 1}')


def test_the_users_code_is_all_python_files_that_the_config_leads_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "losses").mkdir()
    for name, text in {
        "model.py": "import layers\n",
        "layers.py": "import torch\n",
        "unused.py": "",
        "losses/mine.py": "def loss(labels, outputs): ...\n",
    }.items():
        (tmp_path / name).write_text(text)
    trainer = {"framework": "pytorch", "model": "model.py", "loss": "losses/mine.py:loss"}
    config = load_config(None, document={**DOCUMENT, "trainer": trainer, "tune": None})
    found = stage_settings.code_texts(config)
    assert list(found) == ["code/layers.py", "code/losses/mine.py", "code/model.py"]
    assert found["code/model.py"] == "import layers\n"
    assert stage_settings.code_texts(load_config(None, document={"name": "x", "data": {"path": "d.csv"}, "label": "y"})) == {}
