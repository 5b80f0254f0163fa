"""The runner contract: `compile` starts nothing, `close` ends what has been started."""

import io

import pytest
from rich.console import Console

from switchyard.components.errors import UserError
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.definition import UNCACHED
from switchyard.pipelines.runners.contract import RUNNERS, runner_class
from switchyard.pipelines.runners.kubeflow.local.runner import KfpLocalRunner
from switchyard.pipelines.runners.local.runner import LocalRunner
from switchyard.pipelines.runners.this_machine import MachineRunner
from switchyard.pipelines.workspace import Workspace

RUNNER = {"local": LocalRunner, "kfp-local": KfpLocalRunner}


@pytest.fixture
def config(tmp_path):
    (tmp_path / "d.csv").write_text("a,y\n" + "".join(f"{n},{n % 2}\n" for n in range(100)))
    return load_config(None, document={"name": "x", "data": {"path": str(tmp_path / "d.csv")}, "label": "y", "task": "binary"})


@pytest.mark.parametrize("name", RUNNER)
def test_compiling_a_pipeline_starts_no_process(name, config, tmp_path):
    with RUNNER[name](Workspace(tmp_path / "w"), Console(file=io.StringIO())) as runner:
        compiled = runner.compile(config)
        assert runner._processes is None
    assert compiled.config == config
    assert {"ingest", "training", "report"} <= set(compiled.stages)
    assert "ingest" in compiled.stages["statistics"]
    assert set(UNCACHED) < set(compiled.stages)


def test_a_refused_compilation_removes_its_files(config, tmp_path):
    runner = LocalRunner(Workspace(tmp_path / "w"), Console(file=io.StringIO()))
    with pytest.raises(UserError, match="task: "):
        runner.compile(config.model_copy(update={"task": "auto"}))
    assert not (tmp_path / "w").exists()


def test_every_runner_in_the_table_runs_on_this_machine():
    assert all(issubclass(runner_class(name), MachineRunner) and runner_class(name).name == name for name in RUNNERS)


def test_a_runner_can_be_closed_twice(tmp_path):
    runner = LocalRunner(Workspace(tmp_path / "w"), Console(file=io.StringIO()))
    with runner:
        pass
    runner.close()
