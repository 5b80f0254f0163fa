"""`kill -9` as a stage begins: the next run repeats no finished stage, and training resumes from its checkpoint."""

import signal

import psutil
import pytest
from mlflow import MlflowClient

from tests.command import ANEW, BREAST_CANCER, STAGES, all_gone, lines_until, run, start

# Long enough for a kill in between, on a quiet machine and on a busy one.
TRAINED_LONG = ["--set", "trainer.hyperparameters.epochs=300", "--set", "trainer.hyperparameters.early_stopping=null"]


def kill_as_it_begins(stage, workspace, *arguments):
    """Starts a run, kills it when `stage` begins (training: after its first epoch); returns what the run said."""
    process = start("run", BREAST_CANCER, "--workspace", workspace, "--trainer", "pytorch", "--json", *arguments)
    lines = lines_until(process, " training: epoch" if stage == "training" else f" {stage}: running")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    all_gone(children)
    return "".join(lines)


def kill_in_turn(stages, workspace, *arguments):
    """Kills a run in each of `stages`, then lets one end; returns the stages that had finished before, and the last run."""
    finished = set()
    for stage in stages:
        said = kill_as_it_begins(stage, workspace, *arguments)
        for done in finished - ANEW:
            assert f" {done}: ran" not in said, f"{done} was run again before {stage}"
        finished |= {s for s in STAGES if f" {s}: ran" in said}
    return finished, run(BREAST_CANCER, workspace, "--trainer", "pytorch", *arguments)


def check(finished, last, workspace):
    assert {s: last.stages[s] for s in finished} == {s: "ran" if s in ANEW else "cached" for s in finished}
    assert last.json["status"] == "blessed"
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    runs = client.search_runs([last.json["mlflow_experiment_id"]], max_results=1000)
    assert [r.info.run_name for r in runs if r.info.status == "RUNNING"] == []
    resumed = [int(r.data.tags["resumed_from_epoch"]) for r in runs if "resumed_from_epoch" in r.data.tags]
    assert resumed
    assert max(resumed) > 0


@pytest.mark.core
def test_killed_in_the_first_beam_stage_in_training_and_in_the_registry(tmp_path):
    unserved = ["--set", "serving.infra_validation=null"]
    finished, last = kill_in_turn(["statistics", "training", "registry"], tmp_path, *TRAINED_LONG, *unserved)
    check(finished, last, tmp_path)
    assert finished >= {"ingest", "statistics", "schema", "transform", "training", "evaluation"}


@pytest.mark.timeout(1800)  # twelve runs
def test_killed_in_every_stage_in_turn(tmp_path):
    finished, last = kill_in_turn(STAGES, tmp_path, *TRAINED_LONG)
    check(finished, last, tmp_path)
    assert finished >= {"ingest", "statistics", "schema", "transform", "training"}
