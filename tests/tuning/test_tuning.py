"""`tune`: both trainers searched, pruned, tracked, cached, and resumed after a kill."""

import json
import os
import signal

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from tests.command import BREAST_CANCER, NO_CONTEST, REPOSITORY, all_gone, lines_until, start

BOWL = f"{REPOSITORY / 'tests' / 'contract' / 'tunable_trainers.py'}:BowlTrainer"
RATES = {"low": 0.0001, "high": 1.0, "log": True}


def pipeline(folder, tune, **trainer):
    document = yaml.safe_load(BREAST_CANCER.read_text())
    document["data"]["path"] = str(BREAST_CANCER.parent / "data.csv")
    document["validation"] = {}
    document["serving"] = {"infra_validation": None}
    document["trainer"] = trainer
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({**document, "tune": tune}))
    return path


def bowl(folder, tune, **trainer):
    """Thresholds off: no gate on the model."""
    path = pipeline(folder, tune, framework=BOWL, **trainer)
    document = yaml.safe_load(path.read_text())
    document["evaluation"] = {"improvement": None, "thresholds": {"example_count": {"lower_bound": 1}}}
    path.write_text(yaml.safe_dump(document))
    return path


def children(client, experiment, run_id):
    return client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run_id}'")


def stage_run(client, result, stage):
    return next(r for r in children(client, result["mlflow_experiment_id"], result["mlflow_run_id"]) if r.info.run_name == stage)


def test_both_trainers_are_searched_with_parallel_trials(warm, tmp_path):
    tune = {"space": {"learning_rate": {"low": 0.0003, "high": 0.03, "log": True}, "batch_size": [32, 64]}, "trials": 3}
    path = pipeline(
        tmp_path, {**tune, "parallel": 2, "metric": "val_auc"}, framework=["tensorflow", "pytorch"], hyperparameters={"epochs": 4}
    )
    done = warm.run(path, tmp_path / "w", *NO_CONTEST)
    assert [s for s in done.stages if s.startswith(("tuning", "training"))] == [
        "tuning_tensorflow",
        "training_tensorflow",
        "tuning_pytorch",
        "training_pytorch",
    ]
    client = MlflowClient(f"sqlite:///{tmp_path / 'w' / 'mlflow.db'}")
    for trainer in ("tensorflow", "pytorch"):
        stage = stage_run(client, done.json, f"tuning_{trainer}")
        trials = children(client, stage.info.experiment_id, stage.info.run_id)
        assert sorted(t.info.run_name for t in trials) == ["trial 1", "trial 2", "trial 3"]
        assert {t.info.status for t in trials} == {"FINISHED"}
        assert all(set(t.data.params) == {"learning_rate", "batch_size"} for t in trials)
        # The first trial is the config's own values.
        first = next(t for t in trials if t.info.run_name == "trial 1")
        assert first.data.params == {"learning_rate": "0.001", "batch_size": "64"}
        assert len(client.get_metric_history(first.info.run_id, "val_loss")) == 4
        best = json.loads(open(client.download_artifacts(stage.info.run_id, "tuning/trials.json")).read())
        value = next(t["value"] for t in best["trials"] if t["number"] == best["best"])
        assert value == max(t["value"] for t in best["trials"] if t["state"] == "complete")
        assert stage.data.metrics["best_val_auc"] == pytest.approx(value)
        training = stage_run(client, done.json, f"training_{trainer}")
        assert float(training.data.params["learning_rate"]) == pytest.approx(best["values"]["learning_rate"])
        assert training.data.params["batch_size"] == str(best["values"]["batch_size"])
        # The same values, the same seed: training repeats the best trial.
        history = {m.step: m.value for m in client.get_metric_history(training.info.run_id, "val_auc")}
        assert history[training.data.metrics["best_epoch"]] == pytest.approx(value, abs=2e-3)
    parent = client.get_run(done.json["mlflow_run_id"])
    assert "learning_rate" not in parent.data.params
    assert set(json.loads(parent.data.tags["tuned.pytorch"])) == {"learning_rate", "batch_size"}
    # Another metric of evaluation changes nothing of the search.
    again = warm.run(path, tmp_path / "w", *NO_CONTEST, "--set", "evaluation.min_slice_examples=50")
    assert {again.stages[f"{s}_{t}"] for s in ("tuning", "training") for t in ("tensorflow", "pytorch")} == {"cached"}


def test_the_optimum_is_found_bad_trials_are_pruned_and_importances_are_reported(warm, tmp_path):
    tune = {"space": {"learning_rate": RATES, "model_parameters.width": {"low": 1, "high": 9}}, "trials": 30, "parallel": 2}
    path = bowl(tmp_path, tune, hyperparameters={"epochs": 6})
    done = warm.run(path, tmp_path / "w")
    client = MlflowClient(f"sqlite:///{tmp_path / 'w' / 'mlflow.db'}")
    stage = stage_run(client, done.json, "tuning")
    found = json.loads(open(client.download_artifacts(stage.info.run_id, "tuning/trials.json")).read())
    assert 0.003 < found["values"]["learning_rate"] < 0.03
    # By how much depends on which of two trials at once ends first, as the sampler learns from it.
    assert found["importance"]["learning_rate"] > found["importance"]["model_parameters.width"]
    assert stage.data.metrics["importance.learning_rate"] == found["importance"]["learning_rate"]
    states = [t["state"] for t in found["trials"]]
    assert len(states) == 30
    assert states.count("pruned") > 3
    assert all(t["epochs"] < 6 for t in found["trials"] if t["state"] == "pruned")
    trials = children(client, stage.info.experiment_id, stage.info.run_id)
    assert sorted({t.data.tags["switchyard.trial"] for t in trials}) == ["complete", "pruned"]
    page = open(client.download_artifacts(stage.info.run_id, "tuning/tuning.html")).read()
    assert "Importance (fANOVA)" in page
    assert "30 trials" in page
    training = stage_run(client, done.json, "training")
    assert float(training.data.params["learning_rate"]) == pytest.approx(found["values"]["learning_rate"])
    report = open(client.download_artifacts(done.json["mlflow_run_id"], "report/report.html")).read()
    assert f"bowl, tuned: learning_rate {found['values']['learning_rate']}" in report


def test_trials_that_fail_are_recorded_and_the_search_continues(warm, tmp_path):
    tune = {"space": {"model_parameters.how": ["well", "crash", "diverge"]}, "trials": 12, "sampler": "random", "pruner": None}
    done = warm.run(bowl(tmp_path, tune, hyperparameters={"epochs": 2}), tmp_path / "w")
    client = MlflowClient(f"sqlite:///{tmp_path / 'w' / 'mlflow.db'}")
    stage = stage_run(client, done.json, "tuning")
    found = json.loads(open(client.download_artifacts(stage.info.run_id, "tuning/trials.json")).read())
    by_value = {t["values"]["model_parameters.how"]: t for t in found["trials"]}
    assert by_value["well"]["state"] == "complete"
    assert by_value["crash"]["why"] == "its process ended with exit code 7"
    assert "loss is nan" in by_value["diverge"]["why"]
    failed = [t for t in children(client, stage.info.experiment_id, stage.info.run_id) if t.info.status == "FAILED"]
    assert len(failed) == sum(t["state"] == "failed" for t in found["trials"]) > 0
    # Where none comes to its end, that is an error that says why.
    tune["space"] = {"model_parameters.how": ["crash", "diverge"]}
    done = warm("run", bowl(tmp_path, tune, hyperparameters={"epochs": 2}), "--workspace", tmp_path / "w")
    assert done.code == 1
    assert "all 12 trials failed" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_a_user_error_ends_the_search_at_once(warm, tmp_path):
    tune = {"space": {"model_parameters.how": ["typo", "typo too"]}, "trials": 50, "sampler": "random"}
    path = bowl(tmp_path, tune, model_parameters={"how": "typo"}, hyperparameters={"epochs": 1})
    done = warm("run", path, "--workspace", tmp_path / "w")
    assert done.code == 2
    assert "tuning: trainer.model: build_model failed: model.py, line 3: NameError" in done.stdout + done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path / 'w' / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("breast_cancer").experiment_id])
    assert sum(r.info.run_name.startswith("trial ") for r in runs) == 1
    assert not [r for r in runs if r.info.status == "RUNNING"]


def test_a_killed_search_resumes(warm, tmp_path):
    tune = {"space": {"learning_rate": RATES}, "trials": 8, "pruner": None}
    path = bowl(tmp_path, tune, model_parameters={"seconds": 0.5}, hyperparameters={"epochs": 3})
    process = start("run", path, "--workspace", tmp_path / "w")
    lines_until(process, " of 8 done")
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("switchyard.components.training.workers.training_server" in " ".join(p.cmdline()) for p in started)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    all_gone(started)
    done = warm.run(path, tmp_path / "w")
    assert "an earlier search was interrupted: it resumes after" in done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path / 'w' / 'mlflow.db'}")
    stage = stage_run(client, done.json, "tuning")
    found = json.loads(open(client.download_artifacts(stage.info.run_id, "tuning/trials.json")).read())
    assert len(found["trials"]) == 8
    anew = children(client, stage.info.experiment_id, stage.info.run_id)
    assert len(anew) < 8
    runs = client.search_runs([stage.info.experiment_id], max_results=1000)
    assert not [r.info.run_name for r in runs if r.info.status == "RUNNING"]
