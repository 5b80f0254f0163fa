"""A run's context, from the runner to a stage's process and a pod; and the variables that carry it."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from switchyard.components.process import variables
from switchyard.components.tracking import run as tracking
from switchyard.components.tracking.context import RunContext

ROOT = Path(__file__).parents[2]
EVERYTHING = RunContext(**{field.name: f"some {field.name}" for field in fields(RunContext)})
OURS = {value for name, value in vars(variables).items() if name.isupper() and isinstance(value, str)}


def test_a_process_has_the_context_of_its_variables():
    assert RunContext.of(EVERYTHING.variables()) == EVERYTHING
    assert RunContext().variables() == {}


def test_a_context_is_the_processes_context_within_its_block_and_is_restored_after_it(monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "before")
    monkeypatch.delenv(variables.STAGE, raising=False)
    with RunContext(stage="training", tracking_uri="sqlite:///x.db").active():
        assert RunContext.current() == RunContext(stage="training", tracking_uri="sqlite:///x.db")
    assert (RunContext.current().run_id, RunContext.current().stage) == ("before", "")


def test_a_task_of_several_stages_has_the_context_of_each():
    task = RunContext.together({"a": RunContext(run_id="1"), "b": RunContext(run_id="2", journal="/j")})
    given = RunContext.of({**task.variables(), "KFP_RUN_ID": "kfp"})
    assert (given.of_stage("a").run_id, given.of_stage("a").kfp_run_id, given.of_stage("a").journal) == ("1", "kfp", "")
    assert (given.of_stage("b").run_id, given.of_stage("b").journal) == ("2", "/j")
    assert given.of_stage("c") == given


def test_a_process_without_a_context_logs_nothing(monkeypatch):
    with RunContext().active():
        run = tracking.current_run()
        assert run.offline
        run.metrics({"loss": 1.0})


def test_credentials_of_the_tracking_server_are_not_compiled(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret of the server")
    assert "MLFLOW_TRACKING_PASSWORD" in RunContext(stage="a").for_child()
    assert "MLFLOW_TRACKING_PASSWORD" not in RunContext(stage="a").variables()


def test_every_environment_variable_is_in_the_one_table():
    assert set(variables.MEANINGS) == OURS
    sources = [*ROOT.glob("components/**/*.py"), *ROOT.glob("pipelines/**/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]
    named = {name for file in sources for name in re.findall(r"SWITCHYARD_[A-Z_]*[A-Z]", file.read_text(encoding="utf-8"))}
    assert named <= OURS


@pytest.mark.parametrize("name", ["MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "KFP_RUN_ID"])
def test_a_runs_variables_are_read_in_one_place(name):
    readers = [
        f for folder in ("components", "pipelines") for f in ROOT.glob(f"{folder}/**/*.py") if f'"{name}"' in f.read_text()
    ]
    assert {f.name for f in readers} <= {"context.py", "resources.py"}  # which has Kubernetes set it
