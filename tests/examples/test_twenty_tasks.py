"""The twenty tasks of docs/twenty-tasks.md: each is read from the page and run as a new user runs it."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from benchmarks.twenty_tasks import write
from tests.command import REPOSITORY

PAGE = REPOSITORY / "docs" / "twenty-tasks.md"
MOST_LINES = 20
# What MLflow has as parameters of the training, where a setting that had no effect would not show otherwise.
USED = {
    "focal": {"loss": "focal", "warmup_steps": "10", "clip_norm": "1.0", "sample_weight": "importance"},
    "asymmetric": {"loss": "asymmetric_loss.py:asymmetric", "loss.factor": "3.0"},
    "adagrad": {"optimizer": "adagrad_model.py:build_optimizer"},
    "watched": {"callbacks": "watch.py:build_callbacks"},
    "recalled": {"metrics": "recalled_model.py:build_metrics"},
    "lightning": {"optimizer": "SGD", "loss": "Own.training_step"},
    "compiled": {"optimizer": "Adam", "schedule": "ExponentialDecay"},
    "robust": {"loss": "huber"},
}
# A metric of each training that is measured only there.
MEASURED = {"recalled": "val_recall", "compiled": "val_mae"}


def tasks():
    """Returns name -> the YAML and the files of code of each section of the page."""
    found = {}
    for section in re.split(r"^## \d+\. ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        fences = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        [config] = [text for language, text in fences if language == "yaml"]
        code = [text for language, text in fences if language == "python"]
        found[yaml.safe_load(config)["name"]] = config, {re.match(r"# (\w+\.py)\n", text)[1]: text for text in code}
    return found


TASKS = tasks()


def lines(text):
    """Returns the number of lines without blank ones and comments."""
    return len([line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")])


def test_there_are_twenty_of_at_most_twenty_lines():
    assert len(TASKS) == 20
    for name, (config, code) in TASKS.items():
        assert sum(map(lines, [config, *code.values()])) <= MOST_LINES, name
        assert all(ast.parse(text) for text in code.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a user with the data, all YAMLs and all code; the tasks share a workspace."""
    found = tmp_path_factory.mktemp("user")
    write(found)
    for name, (config, code) in TASKS.items():
        (found / f"{name}.yaml").write_text(config)
        for file, text in code.items():
            (found / file).write_text(text)
    return found


def quick(name, config):
    """Returns options for less time: stages before training are shared by the tasks on one file, and no model is served.

    Registered models and their champions stay apart.
    """
    settings = [f"name={Path(config['data']['path']).stem}", f"serving.model_name={name}", "serving.infra_validation=null"]
    return [option for setting in settings for option in ("--set", setting)]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_runs_and_its_model_is_blessed(name, folder, warm):
    config = yaml.safe_load(TASKS[name][0])
    frameworks = config["trainer"]["framework"]
    result = warm.run(folder / f"{name}.yaml", folder / "w", *quick(name, config)).json
    assert result["status"] == "blessed"
    assert sorted(result["models"]) == sorted([frameworks] if isinstance(frameworks, str) else frameworks)
    client = MlflowClient(f"sqlite:///{folder / 'w' / 'mlflow.db'}")
    parent = f"tags.mlflow.parentRunId = '{result['mlflow_run_id']}'"
    trainings = [
        run for run in client.search_runs([result["mlflow_experiment_id"]], parent) if run.info.run_name.startswith("training")
    ]
    # A task may train with the settings of one before it: from the cache, whose run is linked.
    for training in [client.get_run(t.data.tags.get("switchyard.cached_from_run", t.info.run_id)) for t in trainings]:
        assert USED.get(name, {}).items() <= training.data.params.items()
        assert MEASURED.get(name, "val_loss") in training.data.metrics
