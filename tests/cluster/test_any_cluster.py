"""What holds on any KFP, with whatever else its cluster has: make test-cluster HOST=...; without HOST on the stand-in.

What the cluster lacks is skipped with the reason. One after the other, in order: later tests look at the runs of earlier ones.
"""

import json
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest

from switchyard.pipelines.config.kubeflow import StageResources
from switchyard.pipelines.kserve.manifests import in_store
from switchyard.pipelines.runners.kubeflow.compiler.compile import compile_tfx_pipeline
from switchyard.pipelines.runners.kubeflow.compiler.workflow_size import workflow_size
from switchyard.pipelines.runners.kubeflow.runs.following import Following, follow
from tests.cluster.any_cluster import STAND_IN, AnyCluster
from tests.cluster.pretending import Told
from tests.command import BREAST_CANCER, STAGES

# A cluster pulls images, and starts a pod a stage.
pytestmark = pytest.mark.timeout(3600)
LONG = ("trainer.hyperparameters.epochs=5000", "trainer.hyperparameters.early_stopping=null")
# The scores of one small data set, by processors that may be of another kind.
CLOSE = 5e-3
WORD = "a word that is no secret"
# The example's default model, in a task that has what it was promised.
MODEL = f"""
import os
from pathlib import Path


def build_model(spec):
    from switchyard.components.training.tensorflow.default_model import default_model

    if os.environ.get("SWITCHYARD_CHECK") != {WORD!r} or Path("PLACE", "word").read_text() != {WORD!r}:
        raise ValueError("the secret did not arrive")
    return default_model(spec)
"""


@pytest.fixture(scope="module")
def cluster(request, warm, tmp_path_factory):
    def given(option):
        return request.config.getoption(f"--cluster-{option}")

    stand_in = None
    if given("host") == STAND_IN:
        stand_in = (request.getfixturevalue("host"), request.getfixturevalue("mlflow"))
    found = AnyCluster(given, warm, tmp_path_factory.mktemp("any cluster"), stand_in)
    found.client.check()
    yield found
    found.clean_up()


@pytest.fixture(scope="module")
def ran(cluster):
    """Returns a function: trainer -> what `submit --wait` printed of its run."""
    found = {}

    def by(trainer):
        if trainer not in found:
            found[trainer] = cluster.submit(f"trainer.framework={trainer}", options=["--wait"])
        return found[trainer]

    return by


@pytest.mark.parametrize("trainer", ["tensorflow", "pytorch"])
def test_a_run_succeeds(ran, trainer):
    found = ran(trainer)
    assert found["state"] == "SUCCEEDED"
    assert set(STAGES) <= set(found["stages"])


@pytest.mark.parametrize("trainer", ["tensorflow", "pytorch"])
def test_a_run_has_the_metrics_of_a_local_one(cluster, ran, trainer):
    cluster.store()
    there, _ = cluster.parent(ran(trainer)["run_id"])
    here = cluster.run_here(f"trainer.framework={trainer}")
    assert here["metrics"]
    assert {k: there.data.metrics[k] for k in here["metrics"]} == pytest.approx(here["metrics"], abs=CLOSE)


def test_mlflow_shows_every_stage_below_the_run(cluster, ran):
    cluster.store()
    parent, stages = cluster.parent(ran("tensorflow")["run_id"])
    assert parent.info.status == "FINISHED"
    assert set(STAGES) <= set(stages)
    assert {r.info.status for r in stages.values()} == {"FINISHED"}


def test_a_finished_stages_log_is_read(cluster, ran):
    assert "training" in cluster.runs("logs", ran("tensorflow")["run_id"], "training")


def test_a_second_identical_run_is_cached(cluster, ran):
    ran("tensorflow")
    found = cluster.submit("trainer.framework=tensorflow", options=["--wait"])
    assert found["stages"]["training"] == "SKIPPED"
    assert found["stages"]["ingest"] == "SKIPPED"
    assert found["stages"]["report"] == "SUCCEEDED"


def test_a_schedule_starts_a_run_that_succeeds(cluster, ran):
    ran("tensorflow")
    made = cluster.submit("trainer.framework=tensorflow", options=["--schedule", "* * * * *"])["recurring_run_id"]
    try:
        run_id = cluster.tick(made)
    finally:
        cluster.runs("schedules", "pause", made)
    assert cluster.ended(run_id) == "SUCCEEDED"
    cluster.runs("schedules", "delete", made)


@pytest.fixture(scope="module")
def stopped(cluster):
    """A run that was terminated while it trained."""
    run_id = cluster.submit("trainer.hyperparameters.batch_size=64")["run_id"]
    cluster.until(lambda: cluster.client.run(run_id).state == "RUNNING", 300, "its start")
    cluster.runs("terminate", run_id)
    return run_id


def test_a_terminated_run_is_canceled_and_leaves_nothing_running_in_mlflow(cluster, stopped):
    assert cluster.ended(stopped, 120) == "CANCELED"
    cluster.store()
    time.sleep(0 if cluster.is_stand_in else 10)  # pods that still end may say so
    cluster.runs("show", stopped)
    parent, stages = cluster.parent(stopped)
    assert "RUNNING" not in {r.info.status for r in (parent, *stages.values())}


def test_a_retried_run_succeeds_and_leaves_no_error(cluster, stopped):
    cluster.ended(stopped, 120)

    def retried():
        return cluster.command("runs", "retry", stopped, *cluster.connection).code == 0

    cluster.until(retried, 120, "that KFP takes the retry")
    cluster.until(lambda: cluster.client.run(stopped).state in ("RUNNING", "SUCCEEDED"), 120, "its new start")
    assert cluster.ended(stopped) == "SUCCEEDED"
    if cluster.mlflow:
        cluster.runs("show", stopped)
        parent, stages = cluster.parent(stopped)
        assert parent.info.status == "FINISHED"
        assert [s for s, r in stages.items() if "switchyard.error" in r.data.tags] == []


def test_training_resumes_from_the_workspace_after_its_pod_was_killed(cluster, ran):
    store = cluster.store()
    first = ran("tensorflow")["run_id"]
    if not cluster.is_stand_in:
        cluster.needs_kubectl(first)
    known = {r.run_id for r in cluster.client.runs(cluster.name, 50)}
    with ThreadPoolExecutor() as pool:
        options = {"options": ["--wait", "--heal", "1"], "expect": 1, "fresh": True}
        waiting = pool.submit(cluster.submit, *LONG, "kubeflow.workspace=1Gi", **options)

        def begun():
            assert not waiting.done(), waiting.result()
            return next((r.run_id for r in cluster.client.runs(cluster.name, 5) if r.run_id not in known), None)

        run_id = cluster.until(begun, 600, "the run")

        def steps():
            assert not waiting.done(), waiting.result()
            training = cluster.parent(run_id)[1].get("training")
            return [m.step for m in store.get_metric_history(training.info.run_id, "val_loss")] if training else []

        before = cluster.until(lambda: s if len(s := steps()) > 5 else None, 1200, "five epochs")
        cluster.kill_pod(run_id, "training")
        try:
            after = cluster.until(lambda: s if max(s := steps()) > max(before) + 20 else None, 1200, "epochs after the pod's end")
        finally:
            cluster.runs("terminate", run_id)
        ended = waiting.result()
    assert ended["state"] == "CANCELED"
    assert after.count(1) == 1, "the first epoch was trained once: it did not begin again"
    assert sorted(set(after)) == list(range(1, max(after) + 1)), "no epoch is left out"


@pytest.fixture(scope="module")
def equipped(cluster, ran):
    """A run whose training has a secret and resources of its own."""
    cluster.needs_kubectl(ran("tensorflow")["run_id"])
    secret = cluster.name.replace("_", "-")
    cluster.made.append(("secret", secret))
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret},
        "data": {"word": b64encode(WORD.encode()).decode()},
    }
    cluster.kubectl("create", "--validate=false", "-f", "-", content=json.dumps(document))
    model = cluster.folder / "model.py"
    place = cluster.mounted("/etc/switchyard-check")
    model.write_text(MODEL.replace("PLACE", place))
    training = {
        "cpu": "500m",
        "memory": "3Gi",
        "shared_memory": "64Mi",
        "cache": False,
        "secrets": {"SWITCHYARD_CHECK": f"{secret}/word"},
        "secret_files": {place: secret},
    }
    found = cluster.submit(f"trainer.model={model}", f"kubeflow.stages.training={json.dumps(training)}", options=["--wait"])
    return found["run_id"]


def test_secrets_reach_the_stage_as_variables_and_files(cluster, equipped):
    assert cluster.ended(equipped) == "SUCCEEDED", "the stage fails without them"


def test_a_stage_has_the_configured_resources(cluster, equipped):
    limits = cluster.main_container(equipped, "training")["resources"]["limits"]
    assert (limits["cpu"], limits["memory"]) == ("500m", "3Gi")


def test_two_nodes_train_by_a_train_job(cluster, ran):
    cluster.needs_kubectl(ran("tensorflow")["run_id"])
    lacks = {
        "Kubeflow Trainer (the CRD trainjobs.trainer.kubeflow.org)": ("crd", "trainjobs.trainer.kubeflow.org"),
        "the runtime of infra/kubeflow-trainer": ("trainingruntime", "switchyard"),
        "the claim of infra/kubeflow-trainer": ("pvc", "switchyard-training"),
    }
    for what, (kind, name) in lacks.items():
        if not cluster.has(kind, name):
            pytest.skip(f"the cluster lacks {what}")
    place = cluster.mounted("/mnt/training")
    training = {"cpu": "1", "memory": "3Gi", "volumes": [{"claim": "switchyard-training", "path": place}]}
    found = cluster.submit(
        "trainer.framework=pytorch",
        'trainer.accelerator={"kind": "cpu", "nodes": 2}',
        f"kubeflow.train_job={json.dumps({'path': place})}",
        f"kubeflow.stages.training={json.dumps(training)}",
        options=["--wait"],
    )
    assert found["state"] == "SUCCEEDED"
    assert cluster.kubectl("get", "trainjobs", "-o", "name").count("switchyard-pytorch") == 0, "the job was taken away"


def test_kserve_serves_the_model(cluster, ran, request):
    cluster.needs_kubectl(ran("tensorflow")["run_id"])
    if not cluster.has("crd", "inferenceservices.serving.kserve.io"):
        pytest.skip("the cluster lacks KServe (the CRD inferenceservices.serving.kserve.io)")
    store = cluster.store()
    version = store.get_model_version_by_alias(cluster.name, "champion").version
    service = cluster.name.replace("_", "-")
    cluster.made.append(("inferenceservice", service))
    options = ["--name", service, "--namespace", cluster.namespace, "--tracking-uri", cluster.mlflow]
    image = request.config.getoption("--cluster-image")
    given = request.config.getoption("--cluster-deploy").split()
    # The tasks reach MLflow at this address too; the stand-in's are on this machine, and an InferenceService is not.
    inside = "http://mlflow.kubeflow:5000" if cluster.is_stand_in else cluster.mlflow
    if "--cluster-tracking-uri" not in given and not in_store(store.get_model_version_download_uri(cluster.name, version)):
        given += ["--cluster-tracking-uri", inside]
    options += [*(["--image", image] if image else []), *given]
    done = cluster.command_with_kubectl(
        "deploy", f"{cluster.name}@champion", "--target", "kserve", "-o", cluster.folder / "kserve", "--apply", *options
    )
    assert done.code == 0, done.stderr
    assert f"{service}: version" in done.stdout


@pytest.fixture(scope="module")
def taxi():
    """TFX's own pipeline; its import takes twenty seconds, and sets variables of the environment."""
    from tests.kubeflow import taxi

    return taxi


def test_a_third_party_tfx_pipeline_runs(cluster, taxi, request):
    data = cluster.folder / "taxi" / "data" / "trips.csv"
    taxi.write_data(data, rows=500)
    image = request.config.getoption("--cluster-image") or "switchyard:check"
    compiled = compile_tfx_pipeline(
        taxi.taxi(str(cluster.folder / "taxi")), image=image, local_files={data.parent: [data]},
        stages={"Trainer": StageResources(memory="3Gi")},
    )  # fmt: skip
    workflow_size(compiled.spec, compiled.platform).check()
    documents = {"pipeline_spec": compiled.spec, **({"platform_spec": compiled.platform} if compiled.platform else {})}
    config = dict(p.split("=", 1) for p in cluster.settings()[1::2])
    run = cluster.client.submit(
        "taxi", cluster.client.experiment(cluster.name), documents, parameters={}, mlflow_experiment=cluster.name,
        pipeline_root=config.get("kubeflow.pipeline_root"), service_account=config.get("kubeflow.service_account"),
    )  # fmt: skip
    told = Told()
    run, states = follow(cluster.client, run.run_id, compiled.tasks, list(compiled.waits), told, Following(poll=1.0))
    assert run.state == "SUCCEEDED", told.said
    assert {"CsvExampleGen", "Transform", "Trainer", "Evaluator", "Pusher"} <= set(states)


def test_doctor_finds_nothing_that_would_fail(cluster):
    # The stand-in's tasks reach MLflow at this machine's own address, which pods could not.
    pipeline = [] if cluster.is_stand_in else [BREAST_CANCER, *cluster.settings()]
    done = cluster.command("doctor", *pipeline, *cluster.connection)
    assert done.code == 0, f"{done.stdout}\n{done.stderr}"
