"""Kills, cancellation, side-by-side runs, MLflow away, a full disk: nothing finished is lost, nothing is corrupted."""

import json
import os
import signal
import subprocess
import sys
import threading

import psutil
from mlflow import MlflowClient

from tests.command import (
    ANEW,
    BREAST_CANCER,
    NO_CONTEST,
    REPOSITORY,
    STAGES,
    all_gone,
    environment,
    free_port,
    lines_until,
    mlflow_server,
    run,
    start,
    switchyard,
)

QUICK = ["--set", "trainer.hyperparameters.epochs=10", "--set", "serving.infra_validation=null"]
SLOW = ["--set", "trainer.hyperparameters.epochs=80", "--set", "trainer.hyperparameters.early_stopping=null"]


def test_ctrl_c_ends_a_run_with_one_line_and_leaves_no_process(tmp_path):
    process = start("run", BREAST_CANCER, "--workspace", tmp_path, "--json", *SLOW)
    lines_until(process, "training: running")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cancelled; finished stages are kept" in err
    assert "Traceback" not in out + err
    assert "training: cancelled" in err
    assert "failed" not in err
    told = json.loads(out.splitlines()[-1])
    assert told["status"] == "cancelled"
    assert told["stages"]["training"]["status"] == "cancelled"
    all_gone(children)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("breast_cancer").experiment_id
    parent = next(r for r in client.search_runs([experiment]) if "mlflow.parentRunId" not in r.data.tags)
    assert parent.info.status == "KILLED"
    training = next(r for r in client.search_runs([experiment]) if r.info.run_name == "training")
    assert (training.info.status, training.data.tags["switchyard.status"]) == ("KILLED", "cancelled")


def first_of_two(workspace, trainer):
    return switchyard("run", BREAST_CANCER, "--workspace", workspace, "--json", "--trainer", trainer, *QUICK, *NO_CONTEST)


def test_two_concurrent_runs_in_one_workspace_finish_and_one_is_champion(tmp_path, warm):
    done = {}
    threads = [
        threading.Thread(target=lambda t=t: done.update({t: first_of_two(tmp_path, t)})) for t in ("tensorflow", "pytorch")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {d.json["model_version"] for d in done.values()} == {"1", "2"}, [d.stderr for d in done.values()]
    # The second to come to the registry was not compared with the first, which is champion by now.
    [first, second] = sorted(done.values(), key=lambda d: d.code)
    assert (first.code, second.code) == (0, 4)
    assert first.json["champion"] == first.json["model_version"] == second.json["champion"]
    assert "not promoted: breast_cancer: the champion was not known" in second.json["error"]
    again = warm.run(BREAST_CANCER, tmp_path, "--trainer", "pytorch", *QUICK, *NO_CONTEST, "--even-if-unchanged")
    # Each run made the features itself; the cache has those that were written last, which may be the other run's.
    assert {n for n, s in again.stages.items() if s != "cached"} in (ANEW, ANEW | {"training"})


def test_a_run_recorded_while_mlflow_is_unreachable_is_uploaded_later(tmp_path):
    """A tracking server that is not there: the run ends well, says so, and its record is uploaded later to a real one."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    arguments = ["--set", f"tracking.uri={uri}", "--set", "trainer.hyperparameters.epochs=3"]
    done = run(BREAST_CANCER, tmp_path / "w", *arguments, env={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": 0})
    assert done.json["blessed"] is not None
    assert done.json["mlflow_run_id"] is None
    assert "MLflow was unreachable" in done.stderr
    early = switchyard("upload", "--workspace", tmp_path / "w", env={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": 0})
    assert early.code == 1
    assert "Nothing is lost" in early.stderr
    with mlflow_server(tmp_path, port):
        sent = switchyard("upload", "--workspace", tmp_path / "w")
        assert sent.code == 0, sent.stderr
        assert "1 runs sent" in sent.stdout
        client = MlflowClient(uri)
        runs = client.search_runs([client.get_experiment_by_name("breast_cancer").experiment_id])
        assert sorted(r.info.run_name for r in runs) == sorted([*STAGES, "breast_cancer tensorflow"])
        assert {r.info.status for r in runs} == {"FINISHED"}
        training = next(r for r in runs if r.info.run_name == "training")
        assert len(client.get_metric_history(training.info.run_id, "val_loss")) == 3
        assert client.get_model_version_by_alias("breast_cancer", "champion").version is not None
        assert "nothing to send" in switchyard("upload", "--workspace", tmp_path / "w").stdout
        again = run(BREAST_CANCER, tmp_path / "w", *arguments)
        assert again.stages["training"] == "cached"
        assert again.json["champion"] == again.json["model_version"] == "1"
        assert again.json["models"]["champion"]["version"] == "1"
        assert len(again.stdout.splitlines()) == 1
        assert client.list_artifacts(again.json["mlflow_run_id"], "report")[0].path == "report/report.html"


def test_a_full_disk_ends_a_run_with_a_message_and_the_next_run_works(tmp_path, warm):
    """A limit on file size stands in for a full disk: the write fails in the same place, with the same kind of error."""
    data = tmp_path / "d.csv"
    data.write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(60_000)))
    command = [sys.executable, "-m", "switchyard", "run", "--data", data, "--label", "y", "--workspace", tmp_path / "w"]
    limited = subprocess.run(
        ["prlimit", f"--fsize={1 << 20}", *command],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert limited.returncode == 1
    assert "ingest" in limited.stderr + limited.stdout
    assert "Traceback" not in limited.stderr + limited.stdout
    document = ["--data", data, "--label", "y", "--set", "trainer.hyperparameters.epochs=1"]
    free = warm("run", *document, "--workspace", tmp_path / "w", "--json")
    assert free.code in (0, 4), free.stderr
    assert free.stages["ingest"] == "ran"


def test_nothing_is_written_outside_the_workspace(tmp_path):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    (here / "d.csv").write_text("x,y\n" + "".join(f"{i % 97},{int(i % 97 > 48)}\n" for i in range(600)))
    done = switchyard(
        *("run", "--data", "d.csv", "--label", "y", "--json", "--set", "trainer.hyperparameters.epochs=2"),
        cwd=here,
        env={"HOME": home, "TMPDIR": tmp_path},
    )
    assert done.code in (0, 4), done.stderr
    assert sorted(os.listdir(here)) == [".switchyard", "d.csv"]
    assert json.dumps(done.json)
    assert [p for p in home.rglob("*") if p.is_file()] == []
