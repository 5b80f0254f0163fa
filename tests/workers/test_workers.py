"""One training on several workers: the same loss curve, no row lost or seen twice, a worker or the stage killed."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from switchyard.components.training.start import WEIGHTS, read_weights
from tests.command import REPOSITORY, run
from tests.training_jobs import after_third_epoch, job, prepare_weighted, same_curve, start, starting_point, train

TAXI = REPOSITORY.parent / "shared" / "data" / "chicago_taxi" / "data.csv"
TRAINERS = {"tensorflow", "pytorch"}


def test_one_setting_trains_the_whole_pipeline_on_two_workers(prepared):
    folder = prepared
    results = [
        json.loads(p.read_text()) for p in (folder / ".switchyard" / "artifacts").glob("training_*/model_run/*/result.json")
    ]
    assert [r["workers"] for r in results] == [2, 2]


@pytest.mark.parametrize(
    ("framework", "accelerator"),
    [
        pytest.param("pytorch", {"count": 2}, id="pytorch, DDP, 2 workers"),
        pytest.param("pytorch", {"count": 3}, id="pytorch, DDP, 3 workers"),
        pytest.param("pytorch", {"nodes": 2}, id="pytorch, DDP, 2 nodes"),
        pytest.param("pytorch", {"count": 2, "shard_model": True}, id="pytorch, FSDP, 2 workers"),
        pytest.param("tensorflow", {"count": 2}, id="tensorflow, Mirrored, 2 workers"),
        pytest.param("tensorflow", {"count": 3}, id="tensorflow, Mirrored, 3 workers"),
        pytest.param("tensorflow", {"nodes": 2}, id="tensorflow, MultiWorkerMirrored, 2 nodes"),
    ],
)
def test_several_workers_have_the_loss_curve_of_one(framework, accelerator, prepared, alone, tmp_path):
    found = train(prepared, tmp_path, framework, accelerator)
    assert found["workers"] == accelerator.get("count", 1) * accelerator.get("nodes", 1)
    same_curve(alone(framework), found)


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_class_weights_and_max_steps_keep_the_loss_curve(framework, prepared, alone, tmp_path):
    hyper = {"class_weights": "balanced", "epochs": None, "steps": 50}
    found = train(prepared, tmp_path, framework, {"count": 2}, **hyper)
    assert found["steps"] == 50
    same_curve(alone(framework, **hyper), found)


@pytest.mark.parametrize(
    ("framework", "accelerator"),
    [("tensorflow", {"count": 2}), ("pytorch", {"count": 2}), ("pytorch", {"count": 2, "shard_model": True})],
)
def test_workers_accumulate_the_gradients_of_one(framework, accelerator, prepared, alone, tmp_path):
    hyper = {"accumulate_steps": 4, "optimizer": "sgd", "learning_rate": 1.0}
    found = train(prepared, tmp_path, framework, accelerator, **hyper)
    same_curve(alone(framework, **hyper), found)


@pytest.mark.parametrize(
    ("framework", "accelerator"),
    [("tensorflow", {"count": 2}), ("pytorch", {"count": 2}), ("pytorch", {"count": 2, "shard_model": True})],
)
def test_workers_clip_the_joint_gradient_and_follow_the_schedule_of_one(framework, accelerator, prepared, alone, tmp_path):
    # Large steps: scores that lie close together are all in few of the thresholds of AUC.
    hyper = {"clip_norm": 0.1, "schedule": "cosine", "warmup_steps": 5, "optimizer": "sgd", "learning_rate": 1.0}
    found = train(prepared, tmp_path, framework, accelerator, **hyper)
    same_curve(alone(framework, **hyper), found)


@pytest.mark.parametrize(
    ("framework", "accelerator"),
    [("tensorflow", {"count": 3}), ("pytorch", {"count": 3}), ("pytorch", {"count": 2, "shard_model": True})],
)
def test_workers_weigh_the_rows_of_several_labels_as_one_does(framework, accelerator, tmp_path):
    prepare_weighted(tmp_path)
    hyper = {"accumulate_steps": 2, "optimizer": "sgd", "learning_rate": 0.3}
    one, many = (train(tmp_path, tmp_path / str(i), framework, each, **hyper) for i, each in enumerate(({}, accelerator)))
    assert one["history"][-1]["val_accuracy"] > 0.7
    same_curve(one, many)


@pytest.mark.parametrize(
    ("framework", "accelerator"),
    [
        ("pytorch", {"count": 2}),
        ("pytorch", {"count": 2, "shard_model": True}),
        ("tensorflow", {"count": 2}),
        ("tensorflow", {"nodes": 2}),
    ],
    ids=["pytorch, DDP", "pytorch, FSDP", "tensorflow, Mirrored", "tensorflow, MultiWorkerMirrored"],
)
def test_workers_start_from_the_version_and_keep_what_is_frozen_as_one_does(framework, accelerator, tmp_path):
    prepare_weighted(tmp_path)
    started = starting_point(tmp_path, tmp_path / "first", framework)
    before = read_weights(started / WEIGHTS)
    first = (16, 2) if framework == "pytorch" else (2, 16)
    [frozen] = [name for name, values in before.items() if values.shape == first]
    given = {"started": started, "freeze": [frozen], "optimizer": "sgd", "learning_rate": 0.3}
    one, many = (train(tmp_path, tmp_path / str(i), framework, each, **given) for i, each in enumerate(({}, accelerator)))
    assert one["history"][0]["loss"] < 0.6, "of a version that was trained"
    same_curve(one, many)
    after = read_weights(tmp_path / "1" / "export" / WEIGHTS)
    moved = {name for name, values in before.items() if not np.array_equal(values, after[name])}
    assert frozen not in moved
    assert len(moved) >= 3


@pytest.mark.skipif(not TAXI.exists(), reason=f"the taxi data is not part of the repository and not at {TAXI}")
def test_two_workers_reach_the_auc_of_one_on_taxi_trips(tmp_path):
    document = {
        "name": "taxi",
        "data": {"path": str(TAXI), "exclude": ["tips"]},
        "label": "big_tipper",
        "trainer": {"framework": ["tensorflow", "pytorch"]},
        "serving": {"infra_validation": None},
    }
    (tmp_path / "taxi.yaml").write_text(yaml.safe_dump(document))
    aucs = {}
    for workers in (1, 2):
        done = run(tmp_path / "taxi.yaml", tmp_path / f"on {workers}", "--set", f"trainer.accelerator=cpu:{workers}")
        aucs[workers] = {name: model["metrics"]["auc"] for name, model in done.json["models"].items() if name in TRAINERS}
    assert set(aucs[1]) == set(aucs[2]) == TRAINERS
    for name in TRAINERS:
        assert aucs[2][name] == pytest.approx(aucs[1][name], abs=0.005), (name, aucs)


def launcher_and_workers(pid):
    """PyTorch is trained in a job of the training server, whose child the launcher is; Keras in the stage's process."""
    found = psutil.Process(pid).children(recursive=True)
    (launcher,) = (p for p in found if "switchyard.components.training.workers.launcher" in p.cmdline())
    return launcher.pid, [worker.pid for worker in launcher.children()]


@pytest.mark.parametrize(
    ("framework", "accelerator"),
    [
        ("pytorch", {"count": 2}),
        ("pytorch", {"count": 2, "shard_model": True}),
        ("tensorflow", {"nodes": 2}),
    ],
    ids=["pytorch, DDP", "pytorch, FSDP", "tensorflow, MultiWorkerMirrored"],
)
def test_a_killed_worker_restarts_from_the_checkpoint(framework, accelerator, prepared, alone, tmp_path):
    # Enough epochs that the kill falls into the middle.
    process = start(job(prepared, tmp_path, framework, accelerator, epochs=20), tmp_path)
    after_third_epoch(process)
    _, workers = launcher_and_workers(process.pid)
    os.kill(workers[-1], signal.SIGKILL)
    process.communicate(timeout=400)
    assert process.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["resumed_from_epoch"] > 0
    same_curve(alone(framework, epochs=20), found)


def test_workers_end_with_the_stage(prepared, tmp_path):
    process = start(job(prepared, tmp_path, "pytorch", {"count": 2}, epochs=2000), tmp_path)
    after_third_epoch(process)
    launcher, workers = launcher_and_workers(process.pid)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{p}").exists() for p in (launcher, *workers)):
        assert time.monotonic() < deadline, "the workers outlived the stage"
        time.sleep(0.2)


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_an_error_in_the_model_is_reported_once(framework, prepared, tmp_path):
    (tmp_path / "bad.py").write_text("def build_model(spec):\n    return 3\n")
    command = job(prepared, tmp_path, framework, {"nodes": 2})
    given = json.loads((tmp_path / "given.json").read_text())
    given["settings"]["code"]["path"] = str(tmp_path / "bad.py")
    (tmp_path / "given.json").write_text(json.dumps(given))
    process = start(command, tmp_path)
    process.communicate(timeout=120)
    assert process.returncode != 0
    last = (tmp_path / "log").read_text().strip().splitlines()[-1]
    assert "UserError: trainer.model: build_model must return a" in last
