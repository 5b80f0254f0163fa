"""Runs on a server that executes what it receives, which are ended, killed, or lose MLflow."""

import time
from concurrent.futures import ThreadPoolExecutor

from mlflow import MlflowClient

from tests.cluster.submitting import nested, tracked_by, wait_for_end
from tests.command import mlflow_server


def test_a_terminated_run_keeps_its_checkpoint(submit, mlflow, warm, host):
    long = ["--set", "trainer.hyperparameters.epochs=2000", "--set", "trainer.hyperparameters.early_stopping=null"]
    found, _ = submit(*long, "--set", "kubeflow.workspace=1Gi")
    run_id = found["run_id"]

    def log(text):
        # As long as training takes to begin on a machine with other guests.
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline:
            said = warm("runs", "logs", run_id, "training", "--host", host).stdout
            if text in said:
                return said
            time.sleep(0.2)
        raise AssertionError(f"no {text!r} in\n{said[-2000:]}")

    def epochs():
        client = MlflowClient(tracking_uri=mlflow)
        (training,) = [r for r in nested(mlflow, found["mlflow_run_id"]) if r.info.run_name == "training"]
        return training.info.run_id, [m.step for m in client.get_metric_history(training.info.run_id, "val_loss")]

    log("training: epoch 5 of")
    assert warm("runs", "terminate", run_id, "--host", host).code == 0
    said = log("switchyard: error:")
    assert "terminated (SIGTERM)" in said, said[-4000:]
    assert wait_for_end(warm, host, run_id)["state"] == "CANCELED"
    first_run, done = epochs()
    assert warm("runs", "retry", run_id, "--host", host).code == 0
    assert "an earlier run was interrupted: training resumes after epoch" in log("an earlier run was interrupted")
    log(f"epoch {max(done) + 2} of")
    assert warm("runs", "terminate", run_id, "--host", host).code == 0
    wait_for_end(warm, host, run_id)
    second_run, then = epochs()
    assert first_run == second_run, "the retry continues in the MLflow run of the first try"
    assert sorted(set(then)) == list(range(1, max(then) + 1)), "no epoch is left out"


def test_a_task_that_is_killed_leaves_no_mlflow_run_unfinished(submit, mlflow, tmp_path):
    """As where memory runs out: the task cannot say that it is over."""
    code = "import os\nimport signal\n\n\ndef build_model(spec):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    (tmp_path / "model.py").write_text(code)
    found, _ = submit("--wait", "--set", f"trainer.model={tmp_path / 'model.py'}", expect=1)
    assert found["state"] == "FAILED"
    assert MlflowClient(tracking_uri=mlflow).get_run(found["mlflow_run_id"]).info.status == "FAILED"
    status = {r.info.run_name: r.info.status for r in nested(mlflow, found["mlflow_run_id"])}
    assert status["training"] == "KILLED"
    assert "RUNNING" not in status.values()


def test_a_user_error_ends_with_code_2_as_in_a_local_run(submit, tmp_path):
    (tmp_path / "model.py").write_text("def build_model(spec):\n    raise ValueError('no such luck')\n")
    found, _ = submit("--wait", "--set", f"trainer.model={tmp_path / 'model.py'}", expect=2)
    assert found["state"] == "FAILED"
    assert "no such luck" in found["error"]


def test_an_unreachable_mlflow_at_the_end_of_a_run_does_not_fail_it(submit, tmp_path):
    with ThreadPoolExecutor() as pool:
        with mlflow_server(tmp_path) as uri:
            waiting = pool.submit(submit, "--wait", *tracked_by(uri), "--set", "trainer.hyperparameters.batch_size=16")
            client = MlflowClient(tracking_uri=uri)
            while not _trains(client):
                assert not waiting.done(), waiting.result()
                time.sleep(0.5)
        found, said = waiting.result()
    assert found["state"] == "SUCCEEDED"
    assert found["status"] == "succeeded"
    assert "whether the model was blessed is unknown" in said


def _trains(client):
    experiment = client.get_experiment_by_name("breast_cancer")
    return experiment and client.search_runs([experiment.experiment_id], "tags.`switchyard.stage` = 'training'")
