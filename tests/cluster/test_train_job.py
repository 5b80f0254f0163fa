"""Several nodes of a cluster: the TrainJob, against a stand-in for Kubernetes whose nodes are real processes."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime, TrainerV1alpha1TrainJob
from mlflow import MlflowClient

from switchyard.components.errors import UserError
from switchyard.components.process import variables as names
from switchyard.components.training.workers.train_job import train_job
from switchyard.components.training.workers.train_job_settings import TrainJobSettings
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.kubeflow.compiler.from_config import compile_config
from tests.cluster import grace
from tests.cluster.trainer_cluster import TrainerCluster
from tests.command import BREAST_CANCER, REPOSITORY
from tests.training_jobs import TRAIN, after_third_epoch, job, same_curve, start

GOLDEN = Path(__file__).parent / "golden" / "train_job.yaml"
STAGE = "import sys\nfrom switchyard.components import progress\n"
STAGE += "progress.set_sink(lambda text: print('SAID', text, file=sys.stderr, flush=True))\n" + TRAIN
# As the task's runtime does it.
IN_A_TASK = """
from switchyard.pipelines.runners.kubeflow.task.termination import until_terminated
from switchyard.pipelines.runners.kubeflow.task.tracking import mlflow_run_for_task

with until_terminated(), mlflow_run_for_task("training"), until_terminated():
"""


def settings(folder):
    return TrainJobSettings(
        runtime="switchyard",
        kind="TrainingRuntime",
        path=str(folder),
        image="switchyard:0.1.0",
        resources={"cpu": "4", "nvidia.com/gpu": "2"},
        environment={"PLACE": "here"},
    )


@pytest.fixture
def cluster(tmp_path):
    (tmp_path / "cluster").mkdir()
    made = TrainerCluster(tmp_path / "cluster")
    yield made
    made.close()


def stage(cluster, prepared, tmp_path, framework, run="run-1", first="", inside="", MLFLOW_TRACKING_URI="", **hyper):
    """The training stage, in a process of its own; `first`: what it does before; `inside`: what its work is done in."""
    claim = tmp_path / "claim"
    claim.mkdir(exist_ok=True)
    *_, given = job(prepared, tmp_path / "stage", framework, {"nodes": 2}, **hyper)
    variables = {names.TRAIN_JOB: json.dumps(settings(claim).__dict__), "KUBECONFIG": str(cluster.kubeconfig), "KFP_RUN_ID": run}
    if MLFLOW_TRACKING_URI:
        record = json.dumps({"name": "taxi", "experiment": "taxi", "tags": {}})
        variables |= {"MLFLOW_TRACKING_URI": MLFLOW_TRACKING_URI, "SWITCHYARD_RUN_RECORD": record}
    source = f"{inside}{textwrap.indent(STAGE, '    ')}" if inside else STAGE
    return start([sys.executable, "-c", first + source, given], tmp_path / "stage", **variables)


def finish(process, tmp_path):
    process.communicate(timeout=400)
    log = (tmp_path / "stage" / "log").read_text()
    assert process.returncode == 0, log[-4000:]
    return json.loads((tmp_path / "stage" / "result.json").read_text()), log


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_two_nodes_of_a_stand_in_cluster_train_as_one_worker(framework, cluster, prepared, alone, tmp_path):
    found, log = finish(stage(cluster, prepared, tmp_path, framework), tmp_path)
    assert found["workers"] == 2
    same_curve(alone(framework), found)
    assert any((tmp_path / "stage" / "export").iterdir())
    assert cluster.made == cluster.deleted
    assert cluster.made[0].startswith(f"switchyard-{framework}-")
    # The claim is as it was.
    assert list((tmp_path / "claim" / "switchyard").iterdir()) == []
    assert "SAID nodes: 2 running" in log


@pytest.mark.parametrize("node", [0, 1], ids=["the first", "the second"])
def test_a_lost_node_of_a_stand_in_cluster_is_replaced(node, cluster, prepared, alone, tmp_path):
    process = stage(cluster, prepared, tmp_path, "pytorch", epochs=20)
    after_third_epoch(process)
    (running,) = cluster.jobs.values()
    running.pods[node].kill()
    found, _ = finish(process, tmp_path)
    assert found["resumed_from_epoch"] > 0
    same_curve(alone("pytorch", epochs=20), found)
    assert running.failures >= 1


def test_a_terminated_stage_deletes_its_job_and_ends_its_mlflow_run_within_a_second(cluster, prepared, tmp_path):
    """The fastest first: what still unwinds (a checkpoint, processes that end) is cut short."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    experiment = MlflowClient(tracking_uri=uri).create_experiment("taxi")
    process = stage(cluster, prepared, tmp_path, "pytorch", inside=IN_A_TASK, epochs=2000, MLFLOW_TRACKING_URI=uri)
    after_third_epoch(process)
    grace.terminate(process, lambda: process.poll() is None).join()
    process.communicate()
    assert cluster.made == cluster.deleted
    assert cluster.jobs == {}
    found = MlflowClient(tracking_uri=uri).search_runs([experiment])
    assert {r.info.run_name: r.info.status for r in found} == {"taxi": "FAILED", "training": "FAILED"}


def test_a_killed_stage_finds_its_job_on_a_stand_in_cluster(cluster, prepared, alone, tmp_path):
    process = stage(cluster, prepared, tmp_path, "pytorch", epochs=20)
    after_third_epoch(process)
    process.kill()
    process.communicate()
    assert len(cluster.jobs) == 1
    found, log = finish(stage(cluster, prepared, tmp_path, "pytorch", epochs=20), tmp_path)
    assert "exists from an earlier try; following it" in log
    assert len(cluster.made) == 1
    same_curve(alone("pytorch", epochs=20), found)


def test_nodes_of_a_stage_that_never_returns_end_by_themselves_on_a_stand_in_cluster(cluster, prepared, tmp_path):
    short = "from switchyard.components.training.workers import lease\nlease.SECONDS = 30.0\n"
    process = stage(cluster, prepared, tmp_path, "pytorch", epochs=5000, first=short)
    after_third_epoch(process)
    process.kill()
    process.communicate()
    (running,) = cluster.jobs.values()
    deadline = time.monotonic() + 240
    while not running.status.get("conditions"):
        assert time.monotonic() < deadline, [p.phase for p in running.pods]
        time.sleep(1)
    assert running.status["conditions"][0]["type"] == "Failed", "so that a stage that is tried again makes a new one"
    assert {p.phase for p in running.pods} == {"Failed"}
    assert "the training stage has ended" in "".join(p.log.read_text() for p in running.pods)


def test_a_stage_survives_an_outage_of_a_stand_in_cluster(cluster, prepared, alone, tmp_path):
    process = stage(cluster, prepared, tmp_path, "pytorch", epochs=20)
    after_third_epoch(process)
    cluster.away = True
    time.sleep(5)
    cluster.away = False
    found, log = finish(process, tmp_path)
    assert "Kubernetes is unreachable; the job continues" in log
    assert len(cluster.made) == 1
    same_curve(alone("pytorch", epochs=20), found)


def test_an_error_in_the_model_is_reported_by_a_stand_in_cluster(cluster, prepared, tmp_path):
    claim = tmp_path / "claim"
    claim.mkdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "bad.py").write_text("def build_model(spec):\n    return 3\n")
    *_, given = job(prepared, tmp_path / "stage", "pytorch", {"nodes": 2})
    document = json.loads(Path(given).read_text())
    document["settings"]["code"]["path"] = str(tmp_path / "code" / "bad.py")
    Path(given).write_text(json.dumps(document))
    variables = {names.TRAIN_JOB: json.dumps(settings(claim).__dict__), "KUBECONFIG": str(cluster.kubeconfig)}
    process = start([sys.executable, "-c", STAGE, given], tmp_path / "stage", **variables)
    process.communicate(timeout=120)
    assert process.returncode == 1
    assert "UserError: trainer.model: build_model must return a torch.nn.Module" in (tmp_path / "stage" / "log").read_text()
    assert cluster.made == cluster.deleted


def test_a_service_account_without_rights_on_a_stand_in_cluster_is_an_error_that_names_the_manifests(cluster, prepared, tmp_path):
    cluster.forbidden = True
    process = stage(cluster, prepared, tmp_path, "pytorch")
    process.communicate(timeout=120)
    log = (tmp_path / "stage" / "log").read_text()
    assert "service account lacks permission" in log
    assert "infra/kubeflow-trainer" in log


def manifest():
    return train_job(settings("/mnt/training"), "switchyard-pytorch-0123", Path("/mnt/training/job.json"), nodes=2, processes=2)


@pytest.mark.core
def test_a_train_job_is_the_reviewed_file():
    text = yaml.safe_dump(manifest(), sort_keys=False)
    if not GOLDEN.exists():
        GOLDEN.write_text(text)
        pytest.fail(f"{GOLDEN} was missing and has been written: look at it, then run again")
    assert text == GOLDEN.read_text(), f"made differently than {GOLDEN}; if that is wanted, delete it, run again, and look at it"


@pytest.mark.core
def test_train_job_fits_kubeflow_trainers_models():
    assert TrainerV1alpha1TrainJob.from_dict(manifest()).to_dict() == manifest()


@pytest.mark.core
def test_the_runtime_fits_kubeflow_trainers_models():
    done = subprocess.run(
        ["kubectl", "kustomize", REPOSITORY / "infra" / "kubeflow-trainer"], capture_output=True, text=True, check=True
    )
    documents = {d["kind"]: d for d in yaml.safe_load_all(done.stdout)}
    runtime = documents["TrainingRuntime"]
    assert TrainerV1alpha1TrainingRuntime.from_dict(runtime).to_dict() == runtime
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    assert node["name"] == pod["containers"][0]["name"] == "node"
    claims = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert claims == {documents["PersistentVolumeClaim"]["metadata"]["name"]}


STAGES = "kubeflow.stages.training={memory: 16Gi, volumes: [{claim: switchyard-training, path: /mnt/training}]}"
TRAIN_JOB = "kubeflow.train_job={path: /mnt/training}"


def compiled(tmp_path, *overrides):
    config = load_config(BREAST_CANCER, overrides=[*overrides, "task=binary"])
    return compile_config(config, tmp_path / "code", str(tmp_path / "root"), {}, carry_data=True)


@pytest.mark.core
def test_several_nodes_are_compiled(tmp_path):
    made = compiled(tmp_path, "trainer.accelerator={kind: gpu, count: 2, nodes: 4}", STAGES, TRAIN_JOB)
    executors = {e: c["container"] for e, c in made.spec["deploymentSpec"]["executors"].items()}
    training = next(c for e, c in executors.items() if e.startswith("exec-training"))
    variables = {e["name"]: e["value"] for e in training["env"]}
    given = json.loads(variables[names.TRAIN_JOB])
    # The nodes get what was asked for, the stage's own pod, which waits, nothing of it.
    assert given["resources"] == {"memory": "16Gi", "nvidia.com/gpu": "2"}
    assert "accelerator" not in training.get("resources", {})
    assert "resourceMemoryLimit" not in training.get("resources", {})


@pytest.mark.core
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.accelerator={kind: gpu, nodes: 2}"], "kubeflow.train_job"),
        (["trainer.accelerator={nodes: 2}", TRAIN_JOB], "trainer.accelerator.kind: several nodes need cpu or gpu"),
        (["trainer.accelerator={kind: cpu, nodes: 2}", TRAIN_JOB], "is not on a claim that the stage mounts"),
    ],
)
def test_several_nodes_without_their_requirements_are_refused(overrides, message, tmp_path):
    with pytest.raises(UserError, match=message):
        compiled(tmp_path, *overrides)
