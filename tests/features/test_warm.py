"""A command in a fork of a warm process is like one that imports the libraries itself: output, exit code, signals, leftovers."""

import json
import os
import signal
import subprocess
import time

import psutil
import pytest
from mlflow import MlflowClient

from tests.command import BREAST_CANCER, COMMAND, REPOSITORY, all_gone, lines_until, until_sent

SHORT = ["--set", "trainer.hyperparameters.epochs=2", "--set", "evaluation.improvement=null"]
LONG = ["--set", "trainer.hyperparameters.epochs=500", "--set", "trainer.hyperparameters.early_stopping=null"]


class Warm:
    """The command with warm processes of its own."""

    def __init__(self, folder):
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("CI", "SWITCHYARD_WARM", "PYTEST_CURRENT_TEST")},
            "XDG_RUNTIME_DIR": str(folder),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": str(REPOSITORY),
        }

    def start(self, *arguments, **options):
        options = {"cwd": REPOSITORY, "env": self.environment, **options}
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )

    def __call__(self, *arguments, **options):
        process = self.start(*arguments, **options)
        output, errors = process.communicate(timeout=500)
        return process.returncode, output, errors

    def processes(self):
        """Returns the ids of the warm processes that are ready."""
        lines = self("warm", "status")[1].splitlines()
        return [int(line.split()[0]) for line in lines if line.split()[0].isdigit() and "importing" not in line]

    def forks(self):
        """Returns the processes that were forked from warm ones, without those that wait for them."""
        return [
            fork
            for pid in self.processes()
            for child in psutil.Process(pid).children()
            for fork in child.children(recursive=True)
        ]

    def wait(self, count):
        deadline = time.monotonic() + 300
        while len(self.processes()) < count:
            assert time.monotonic() < deadline, self("warm", "status")
            time.sleep(1)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The command, what its first run of the example gave, which found no warm process and left four, and its workspace."""
    folder = tmp_path_factory.mktemp("runtime")
    folder.chmod(0o700)
    command = Warm(folder)
    code, output, errors = command("run", BREAST_CANCER, "--workspace", folder / "w", "--trainer", "pytorch", *SHORT)
    assert code == 0, errors
    command.wait(4)
    yield command, output, folder / "w"
    command("warm", "stop")
    assert command.processes() == []


def without_what_differs(output):
    """Returns lines without the MLflow run's id and the workspace's folder."""
    return [line for line in output.splitlines() if not line.startswith("MLflow run")]


def test_a_warm_run_has_the_output_and_the_exit_code_of_a_cold_one(first, tmp_path):
    command, cold, _ = first
    process = command.start("run", BREAST_CANCER, "--workspace", tmp_path, "--trainer", "pytorch", *SHORT)
    lines_until(process, " ingest: running")
    assert psutil.Process(process.pid).children() == []
    output, _ = process.communicate()
    assert (process.returncode, without_what_differs(output)) == (0, without_what_differs(cold))
    [log] = tmp_path.glob("logs/*/preload.log")
    assert log.read_text() == ""


@pytest.mark.parametrize("arguments", [
    ["run", "nothere.yaml"],
    ["run", "--no-such-option"],
    ["run", BREAST_CANCER, "--set", "trainer.hyperparameters.epoch=1", "--workspace", "w"],
    ["run", "--data", "rides.csv", "--label", "x"],
    ["predict", "nothere", "rows.csv", "-o", "scores.csv"],
    ["predict", "nothere", "rows.csv"],
])  # fmt: skip
def test_a_mistake_has_the_output_and_the_exit_code_of_a_cold_command(arguments, first, tmp_path):
    command, _, _ = first
    found = command(*arguments, cwd=tmp_path)
    assert found == command(*arguments, cwd=tmp_path, env={**command.environment, "SWITCHYARD_WARM": "0"})
    assert found[0] == 2


def test_the_working_directory_and_the_umask_are_the_commands(first, tmp_path):
    command, _, _ = first
    (tmp_path / "rides.csv").write_text("a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(300)))
    process = command.start("run", "--data", "rides.csv", "--label", "y", "--trainer", "pytorch", cwd=tmp_path, umask=0o077)
    lines_until(process, " ingest: ran")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    written = [path for path in (tmp_path / ".switchyard").rglob("*") if path.is_file()]
    assert written
    assert [path for path in written if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_signal_ends_a_warm_run_with_all_its_processes(number, code, first, tmp_path):
    command, _, _ = first
    process = command.start("run", BREAST_CANCER, "--workspace", tmp_path, "--trainer", "pytorch", *LONG)
    lines_until(process, " training: epoch")
    forks = command.forks()
    assert len(forks) >= 5  # the run, the two servers of trainings, the stages' and the training
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code
    assert ("error: cancelled" in errors) == (code == 1)
    all_gone(forks)
    assert len(command.processes()) == 4


def test_an_unchanged_run_has_the_stages_of_a_cold_one_in_mlflow_a_moment_after_its_end(first):
    command, _, workspace = first
    code, output, errors = command("run", BREAST_CANCER, "--workspace", workspace, "--trainer", "pytorch", "--json", *SHORT)
    assert (code, "nothing has changed" in errors) == (0, True)
    found = json.loads(output.splitlines()[-1])
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    where = f"tags.mlflow.parentRunId = '{found['mlflow_run_id']}'"
    until_sent(workspace)
    stages = client.search_runs([found["mlflow_experiment_id"]], where)
    assert {stage.data.tags["switchyard.stage"] for stage in stages} == set(found["stages"])
    assert {(stage.info.status, stage.data.tags["switchyard.status"]) for stage in stages} == {("FINISHED", "cached")}
    assert {stage.data.metrics["seconds"] for stage in stages} == {0.0}
    assert client.get_run(found["mlflow_run_id"]).info.status == "FINISHED"


def test_a_warm_predict_writes_and_says_what_a_cold_one_does(first, tmp_path):
    command, _, workspace = first
    found = []
    for name, variables in (("cold", {"SWITCHYARD_WARM": "0"}), ("warm", {})):
        (tmp_path / name).mkdir()
        model = ["breast_cancer@champion", BREAST_CANCER.parent / "data.csv", "-o", "scores.csv", "--workspace", workspace]
        process = command.start("predict", *model, cwd=tmp_path / name, umask=0o077, env={**command.environment, **variables})
        output, errors = process.communicate(timeout=500)
        scores = tmp_path / name / "scores.csv"
        found.append((process.returncode, output, errors, scores.read_text(), scores.stat().st_mode & 0o777))
    assert found[0] == found[1]
    assert (found[0][0], found[0][4]) == (0, 0o600)
    assert "569 rows in scores.csv" in found[0][1]


def test_a_run_outlives_the_warm_processes(first, tmp_path):
    command, cold, _ = first
    process = command.start("run", BREAST_CANCER, "--workspace", tmp_path, "--trainer", "pytorch", *SHORT)
    lines_until(process, " ingest: running")
    assert "stopped" in command("warm", "stop")[1]
    output, _ = process.communicate()
    assert (process.returncode, without_what_differs(output)) == (0, without_what_differs(cold))


def test_a_command_with_another_variable_that_a_library_may_read_is_cold_and_replaces_them(first):
    command, _, _ = first
    command("run", "nothere.yaml")
    command.wait(1)
    command("run", "nothere.yaml")
    before = command.processes()
    environment = {**command.environment, "OMP_NUM_THREADS": "1"}
    code, _, errors = command("run", "nothere.yaml", env=environment)
    assert (code, "no such file" in errors) == (2, True)
    deadline = time.monotonic() + 300
    while not command.processes() or set(command.processes()) & set(before):
        assert time.monotonic() < deadline, command("warm", "status")
        time.sleep(1)
