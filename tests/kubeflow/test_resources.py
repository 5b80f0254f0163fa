"""What a cluster is asked for: devices, memory, secrets, volumes. Golden files."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from switchyard.components.errors import UserError
from switchyard.components.ingest.sources import fingerprint
from switchyard.pipelines.config.kubeflow import StageResources, Workspace
from switchyard.pipelines.config.load import load_config
from switchyard.pipelines.runners.kubeflow.carried_files import packed, unpacked
from switchyard.pipelines.runners.kubeflow.compiler import from_config
from switchyard.pipelines.runners.kubeflow.compiler.from_config import compile_config
from switchyard.pipelines.runners.kubeflow.compiler.plan import stages_of
from switchyard.pipelines.runners.kubeflow.compiler.resources import PipelineResources
from switchyard.pipelines.runners.kubeflow.compiler.workflow_size import WorkflowSize, workflow_size
from tests.command import REPOSITORY
from tests.kubeflow import constructs
from tests.kubeflow.test_compiler import compiled, numbers

GOLDEN = Path(__file__).parent / "golden"
EXAMPLE = REPOSITORY / "pipelines" / "examples" / "breast_cancer" / "pipeline.yaml"


EVERYTHING = StageResources.model_validate(
    {
        "cpu": 4,
        "memory": "16Gi",
        "accelerator": "gpu:2",
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}],
        "shared_memory": "8Gi",
        "retries": {"count": 3, "backoff": "30s", "factor": 2},
        "timeout": "2h",
        "environment": {"NCCL_DEBUG": "INFO"},
        "secrets": {"API_KEY": "team/key", "API_USER": "team/user"},
        "secret_files": {"/etc/team": "team"},
        "volumes": [{"claim": "data", "path": "/data"}],
        "cache": False,
        "image": "switchyard:1-gpu",
    }
)


# A long parameter, the config say, is compressed.
PACKED = re.compile(r"(?<=constant: )'?((?:lzma|bz2)\+base85:[^\s']+)'?")


def elsewhere(text):
    return text.replace(str(REPOSITORY), "/repository")


def golden(name, text):
    path = GOLDEN / name
    text = re.sub(PACKED, lambda found: f"'{packed(elsewhere(unpacked(found[1])))}'", elsewhere(text))
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        pytest.fail(f"{path} was missing and has been written: look at it, then run again")
    assert text == path.read_text(), f"compiled differently than {path}; if that is wanted, delete it, run again, and look at it"


@pytest.mark.parametrize("path", sorted(GOLDEN.iterdir()), ids=lambda p: p.name)
def test_a_compiled_pipeline_names_no_private_module(path):
    named = set(re.findall(r"switchyard\.\w+", path.read_text()))
    assert named <= {"switchyard.stages"}


@pytest.mark.core
def test_resources_compile_to_the_reviewed_files():
    one = numbers().with_id("one")
    made = compiled(
        one,
        constructs.annotate(examples=one.outputs["examples"]).with_id("two"),
        constructs.annotate(examples=one.outputs["examples"]).with_id("three"),
        constructs.annotate(examples=one.outputs["examples"]).with_id("four"),
        stages={
            "one": EVERYTHING,
            "two": StageResources(accelerator="tpu:v5e:2x2"),
            "three": StageResources(accelerator="amd-gpu"),
            "four": StageResources(accelerator="habana.ai/gaudi:8", retries={"count": 1}),
        },
        resources=PipelineResources(
            image_pull_policy="IfNotPresent", image_pull_secrets=("registry",), workspace=Workspace.model_validate("20Gi")
        ),
    )
    golden("resources.py", made.source)
    golden("resources.yaml", made.to_yaml())


@pytest.mark.parametrize(
    ("trainer", "device", "accelerator"),
    [
        ("tensorflow", "gpu", "gpu"),
        ("tensorflow", "tpu", "tpu:v5e:2x2"),
        pytest.param("pytorch", "gpu", "gpu", marks=pytest.mark.core),
        ("pytorch", "tpu", "tpu:v5e:2x2"),
    ],
)
def test_the_example_compiles_to_the_reviewed_files(tmp_path, trainer, device, accelerator):
    overrides = [
        f"trainer.framework={trainer}",
        "data.path=gs://bucket/data.csv",
        "task=binary",
        f"kubeflow.stages.training.accelerator={accelerator}",
        "kubeflow.image=registry.example.org/switchyard:1",
        "kubeflow.beam={runner: DataflowRunner, options: {region: europe-west4, experiments: [a, b], no_use_public_ips: true}}",
    ]
    config = load_config(EXAMPLE, overrides=overrides)
    made = compile_config(
        config, tmp_path / "code", str(tmp_path), {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}, carry_data=True
    )
    assert str(tmp_path) not in made.source
    golden(f"breast_cancer_{trainer}_{device}.yaml", made.to_yaml())


@pytest.mark.parametrize(
    ("beam", "said"),
    [
        (
            "{runner: FlinkRunner, options: {job_endpoint: 'jobs:8099', parallelism: 8}}",
            ["FlinkRunner", "job_endpoint=jobs:8099"],
        ),
        ("{runner: SparkRunner, options: {job_endpoint: 'spark:8099'}}", ["SparkRunner", "job_endpoint=spark:8099"]),
        ("{runner: DataflowRunner, options: {project: p, region: r}}", ["DataflowRunner", "project=p", "region=r"]),
    ],
)
@pytest.mark.parametrize("key", ["beam", "kubeflow.beam"])
def test_beam_stages_get_the_engine_of_the_config(tmp_path, key, beam, said):
    overrides = ["data.path=gs://bucket/data.csv", "task=binary", f"{key}={beam}"]
    made = compile_config(load_config(EXAMPLE, overrides=overrides), tmp_path, str(tmp_path), {}, carry_data=True)
    for stage in ("statistics", "transform", "evaluation"):
        command = str(container_of(made, stage))
        assert [s for s in said if f"={s}" not in command and f"--{s}" not in command] == []


def test_a_pod_has_no_flink_job_server_of_its_own(tmp_path):
    overrides = ["data.path=gs://bucket/data.csv", "task=binary", "beam.runner=FlinkRunner"]
    with pytest.raises(
        UserError, match=r"kubeflow.beam: a pod does not start a Flink job server; set kubeflow.beam.options.job_endpoint"
    ):
        compile_config(load_config(EXAMPLE, overrides=overrides), tmp_path, str(tmp_path), {}, carry_data=True)
    direct = load_config(EXAMPLE, overrides=[*overrides, "kubeflow.beam.runner=direct"])
    assert "--runner=FlinkRunner" not in compile_config(direct, tmp_path, str(tmp_path), {}, carry_data=True).source


def container_of(made, stage):
    """Returns the container of the task that a stage is done by."""
    [task] = [task for task, nodes in made.tasks.items() if stage in stages_of(nodes)]
    return made.spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]


def example(tmp_path, *overrides):
    config = load_config(EXAMPLE, overrides=["data.path=gs://bucket/data.csv", "task=binary", *overrides])
    return compile_config(config, tmp_path, str(tmp_path), {}, carry_data=True)


def retry_policies(made):
    found = {name: t.get("retryPolicy") for name, t in made.spec["root"]["dag"]["tasks"].items()}
    # KFP never retries a driver, but what we call one is a task like any other.
    return {name: policy and (policy["maxRetryCount"], policy["backoffDuration"]) for name, policy in found.items()}, found


@pytest.mark.core
def test_every_stage_is_tried_twice_by_default(tmp_path):
    counts, _ = retry_policies(example(tmp_path))
    assert set(counts.values()) == {(1, "30s")}
    overrides = ["kubeflow.defaults.retries=0", "kubeflow.stages.training.retries=3"]
    counts, _ = retry_policies(example(tmp_path / "b", *overrides))
    assert {name for name, count in counts.items() if count} == {"training"}
    assert counts["training"] == (3, "30s")


def test_a_task_is_retried_however_long_it_ran(tmp_path):
    """Argo counts `maxDuration` from the start of the first try: a day of training is within it."""
    _, policies = retry_policies(example(tmp_path, "kubeflow.stages.training.retries={count: 2, backoff: 5m, factor: 3}"))
    assert int(policies["training"]["backoffMaxDuration"].removesuffix("s")) > 100 * 24 * 3600


@pytest.mark.parametrize(
    ("given", "claim", "size"),
    [
        ("1Gi", {"accessModes": ["ReadWriteOnce"]}, "1Gi"),
        (
            "{size: 2Gi, accessModes: ReadWriteMany, storageClassName: fast}",
            {"accessModes": ["ReadWriteMany"], "storageClassName": "fast"},
            "2Gi",
        ),
        ("{size: 2Gi, access_modes: [ReadWriteOncePod]}", {"accessModes": ["ReadWriteOncePod"]}, "2Gi"),
    ],
)
def test_a_workspace_has_its_access_mode_because_a_stock_kfp_requires_it(tmp_path, given, claim, size):
    made = example(tmp_path, f"kubeflow.workspace={given}")
    workspace = made.platform["platforms"]["kubernetes"]["pipelineConfig"]["workspace"]
    assert workspace == {"size": size, "kubernetes": {"pvcSpecPatch": claim}}


@pytest.mark.core
def test_one_setting_asks_for_a_device(tmp_path):
    overrides = [
        "data.path=gs://bucket/data.csv",
        "task=binary",
        "trainer.accelerator=gpu",
        "trainer.framework=[tensorflow, pytorch]",
    ]
    made = compile_config(load_config(EXAMPLE, overrides=overrides), tmp_path, str(tmp_path), {}, carry_data=True)
    executors = made.spec["deploymentSpec"]["executors"]
    for stage in ("training-tensorflow", "training-pytorch"):
        assert (
            executors[f"exec-{stage}"]["container"]["resources"]["accelerator"]
            == {
                "resourceType": "nvidia.com/gpu",
                "resourceCount": "1",
            }
            or executors[f"exec-{stage}"]["container"]["resources"]["accelerator"]["type"] == "nvidia.com/gpu"
        )
    assert "resources" not in container_of(made, "evaluation")


@pytest.mark.core
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["kubeflow.stages.training.accelerator=tpu"], "tpu:TYPE:TOPOLOGY"),
        (["kubeflow.stages.training.accelerator=tpu:v5e:4x4"], "16 chips"),
        (["kubeflow.stages.training.accelerator=gpus"], "is not an accelerator"),
        (["kubeflow.stages.training.memory=16 GB"], "not a Kubernetes quantity"),
        (["kubeflow.stages.training.timeout=2 hours"], "90s, 15m or 2h"),
        (["kubeflow.stages.training.secrets={API_KEY: hunter2}"], "NAME/KEY"),
        (["kubeflow.stages.training.environment={MLFLOW_TRACKING_PASSWORD: x}"], "looks like a secret"),
        (["kubeflow.stages.training.gpus=1"], "gpus"),
        (["kubeflow.pipeline_root=/tmp/x"], "URI of an object store"),
        (["kubeflow.workspace={size: 1Gi, storageClassName: ''}"], "kubeflow.workspace.storageClassName"),
        (["kubeflow.workspace={size: 1Gi, accessModes: [ReadOnlyMany]}"], "kubeflow.workspace.accessModes"),
        (["kubeflow.stages.training.retries={count: 2, longest: 10m}"], "from the start of the first try"),
        (["kubeflow.data_root=s3://bucket/x"], "TensorFlow reads no s3://"),
    ],
)
def test_invalid_resources_are_refused(overrides, said):
    with pytest.raises(UserError) as error:
        load_config(EXAMPLE, overrides=overrides)
    assert said in str(error.value)


@pytest.mark.core
def test_data_that_is_too_large_to_travel_is_refused(tmp_path):
    big = tmp_path / "big.csv"
    big.write_text("a,diagnosis\n" + "1.0,benign\n" * 60_000)
    config = load_config(EXAMPLE, overrides=[f"data.path={big}", "task=binary"])
    with pytest.raises(UserError, match=r"data.path: .*big.csv holds .* bytes on this machine.*s3://"):
        compile_config(config, tmp_path / "code", str(tmp_path), {}, carry_data=True)


def small(tmp_path, *overrides, rows=20):
    data = tmp_path / "rows.csv"
    data.write_text("a,diagnosis\n" + "".join(f"{i}.5,{'benign' if i % 2 else 'malignant'}\n" for i in range(rows)))
    given = [f"data.path={data}", "task=binary", "validation.schema=null", *overrides]
    config = load_config(EXAMPLE, overrides=given)
    return data, compile_config(config, tmp_path / "code", str(tmp_path), {}, carry_data=True)


@pytest.mark.core
def test_embedded_data_is_in_one_task_which_needs_no_driver(tmp_path):
    data, made = small(tmp_path)
    commands = {k: str(e["container"]["command"]) for k, e in made.spec["deploymentSpec"]["executors"].items()}
    [holder] = [name for name, command in commands.items() if "rows.csv" in command]
    assert holder.startswith("exec-ingest")
    assert "drive-ingest" not in made.spec["root"]["dag"]["tasks"]
    assert fingerprint([str(data)]) in commands[holder], "what the driver says of it is in the task, hence in its cache key"


@pytest.mark.parametrize(
    ("overrides", "joined"),
    [
        ([], True),
        (["trainer.framework=pytorch"], True),
        (["kubeflow.workspace=1Gi"], False),
        (["kubeflow.stages.training.memory=8Gi"], False),
        (["kubeflow.stages.transform.image=other:1"], False),
        (["kubeflow.stages.training.retries=0"], False),
        (["trainer.accelerator=cpu"], False),
        (["trainer.framework=[tensorflow, pytorch]"], False),
        (["tune={space: {learning_rate: {low: 0.001, high: 0.1}}, trials: 4}"], False),
    ],
)
def test_training_shares_the_task_of_transform_where_it_has_nothing_of_its_own(tmp_path, overrides, joined):
    _, made = small(tmp_path, *overrides)
    assert ("transform-then-training" in made.tasks) is joined
    assert (longest_chain(made.spec) == 4) is joined


def test_training_is_a_task_of_its_own_where_transforming_takes_longer_than_a_pod_does(tmp_path, monkeypatch):
    monkeypatch.setattr(from_config, "_QUICKLY_TRANSFORMED", 100)
    _, made = small(tmp_path)
    assert "training" in made.tasks


def test_a_serving_sample_beside_the_data_travels_without_it(tmp_path):
    (tmp_path / "sample.csv").write_text("a,diagnosis\n1.5,benign\n")
    _, made = small(tmp_path, f"validation.serving_sample={tmp_path / 'sample.csv'}")
    commands = {k: str(e["container"]["command"]) for k, e in made.spec["deploymentSpec"]["executors"].items()}
    assert [name[:11] for name, command in commands.items() if "rows.csv" in command] == ["exec-ingest"]
    assert "sample.csv" in str(container_of(made, "data_gate"))


def sizes(path):
    documents = list(yaml.safe_load_all(path.read_text()))
    return workflow_size(documents[0], documents[1] if len(documents) > 1 else None)


@pytest.mark.core
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_workflow_of_every_reviewed_pipeline_fits_a_cluster(path):
    found = sizes(path)
    assert found.nodes + found.arguments <= 300_000, f"{found}"
    found.check()


def test_the_example_that_carries_its_data_is_eight_pods_in_series_and_fits_a_cluster(tmp_path):
    """Its bytes stand in the Workflow six times, with retries. A task has two pods, the driver's and its own."""
    config = load_config(EXAMPLE, overrides=["task=binary"])
    made = compile_config(config, tmp_path / "code", str(tmp_path), {}, carry_data=True)
    assert 2 * longest_chain(made.spec) == 8
    assert set(retry_policies(made)[0].values()) == {(1, "30s")}
    found = workflow_size(made.spec, made.platform)
    assert found.nodes + found.arguments < 550_000, f"{found}"


def longest_chain(spec):
    tasks = spec["root"]["dag"]["tasks"]

    def depth(name):
        return 1 + max(map(depth, tasks[name].get("dependentTasks", [])), default=0)

    return max(map(depth, tasks))


@pytest.mark.core
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("breast_cancer*.yaml")), ids=lambda p: p.stem)
def test_the_example_with_data_in_an_object_store_is_six_tasks_in_series(path):
    assert longest_chain(next(yaml.safe_load_all(path.read_text()))) == 6


def test_the_benchmark_of_tasks_finds_the_imports_of_every_stage():
    """benchmarks/kfp_tasks.py reads them from the tasks' source."""
    from benchmarks import kfp_tasks

    made = SimpleNamespace(spec=next(yaml.safe_load_all((GOLDEN / "breast_cancer_pytorch_gpu.yaml").read_text())), platform=None)
    assert kfp_tasks.shape(made)["pods in series"] == 12
    found = [module for task in kfp_tasks.imports(made) for module in task]
    stages = ("baseline", "data_gate", "evaluation", "infra_validation", "registration", "report", "training", "transform")
    assert {f"switchyard.components.{stage}.component" for stage in stages} <= set(found)
    assert found.count("apache_beam") == 3, "statistics, transform, evaluation"


def test_the_largest_pipeline_that_is_supported_fits_a_cluster(tmp_path):
    """Three trainers, each with a search before it and on two nodes."""
    (tmp_path / "third.py").write_text(
        "from switchyard.components.training.pytorch.trainer import Trainer\n\n\nclass Third(Trainer):\n    pass\n"
    )
    overrides = [
        "task=binary",
        f"trainer.framework=[tensorflow, pytorch, {tmp_path / 'third.py'}:Third]",
        "trainer.accelerator={kind: gpu, count: 4, nodes: 2}",
        "kubeflow.train_job={path: /mnt/training}",
        "kubeflow.stages.training={memory: 64Gi, volumes: [{claim: training, path: /mnt/training}]}",
        "tune={space: {learning_rate: {low: 0.001, high: 0.1}}, trials: 4}",
        "data.path=gs://bucket/data.csv",
    ]
    made = compile_config(load_config(EXAMPLE, overrides=overrides), tmp_path / "code", str(tmp_path), {}, carry_data=True)
    found = workflow_size(made.spec, made.platform)
    assert found.nodes + found.arguments < 600_000, f"{found}"


# breast_cancer at 7c95728: task, bytes of its container, of its component and of itself, its artifacts, bytes of its constants.
MEASURED = [
    ("baseline", 4299, 449, 452, 2, 70),
    ("data-gate", 5000, 924, 1343, 7, 473),
    ("drive-ingest", 71416, 264, 606, 0, 387),
    ("evaluation", 5418, 941, 953, 7, 343),
    ("infra-validation", 4445, 501, 602, 3, 105),
    ("ingest", 71491, 367, 775, 1, 387),
    ("registry", 4786, 712, 777, 5, 35),
    ("report", 5997, 1594, 3204, 13, 1556),
    ("schema", 10897, 274, 262, 1, 61),
    ("statistics", 4952, 512, 396, 3, 24),
    ("training", 5098, 928, 1533, 7, 644),
    ("transform", 5466, 810, 847, 4, 216),
    ("validation", 4587, 623, 525, 4, 24),
]


def padded(content, size):
    """Returns the mapping with as many letters as make its JSON as long as `size`, inside of JSON."""
    short = len(json.dumps(json.dumps({**content, "pad": ""})))
    return {**content, "pad": "x" * (size - short)}


@pytest.mark.core
def test_the_estimated_size_of_a_workflow_equals_the_one_measured_on_a_real_cluster():
    tasks, components, executors = {}, {}, {}
    for name, container, component, task, artifacts, constants in MEASURED:
        executors[name] = {"container": padded({}, container)}
        declared = {"artifacts": {f"a{i}": {} for i in range(artifacts)}}
        components[name] = padded({"executorLabel": name, "inputDefinitions": declared}, component)
        given = {"p": {"runtimeValue": padded({}, constants)}} if constants else {}
        tasks[name] = padded({"componentRef": {"name": name}, "inputs": {"parameters": given}}, task)
    spec = {"root": {"dag": {"tasks": tasks}}, "components": components, "deploymentSpec": {"executors": executors}}
    found = workflow_size(spec, None)
    assert found.nodes == pytest.approx(1_122_787, rel=0.05)
    assert found.arguments == pytest.approx(214_721, rel=0.1)


@pytest.mark.core
def test_a_pipeline_too_large_for_a_cluster_is_refused_with_its_largest_parts(tmp_path):
    tasks = {f"t{i}": {"componentRef": {"name": "comp-a"}, "retryPolicy": {"maxRetryCount": 1}} for i in range(20)}
    tasks["large"] = {"componentRef": {"name": "comp-large"}}
    spec = {
        "root": {"dag": {"tasks": tasks}},
        "components": {"comp-a": {"executorLabel": "exec-a"}, "comp-large": {"executorLabel": "exec-large"}},
        "deploymentSpec": {
            "executors": {
                "exec-a": {"container": {"command": ["x" * 5_000]}},
                "exec-large": {"container": {"command": ["x" * 60_000]}},
            }
        },
    }
    found = workflow_size(spec, None)
    assert found.tasks["large"] > 4 * 60_000
    with pytest.raises(UserError, match=r"too large for Kubeflow Pipelines.*Largest: large \(.*data.path: s3://"):
        found.check()
    assert found.tasks["t0"] > 5 * 5_000, "one that may be tried again is there once more"


@pytest.mark.core
def test_a_workflow_is_measured_with_everything_besides_its_tasks_states():
    WorkflowSize(800_000, 100_000, {}).check()
    with pytest.raises(UserError, match="about 900,001 bytes"):
        WorkflowSize(800_000, 100_001, {}).check()


@pytest.mark.core
def test_the_task_that_looks_the_data_up_has_its_stages_cpu_and_memory(tmp_path):
    overrides = ["data.path=gs://bucket/data.csv", "task=binary", "kubeflow.defaults={cpu: 2, memory: 4Gi}"]
    overrides.append("kubeflow.stages.ingest={memory: 8Gi, timeout: 1h}")
    made = compile_config(load_config(EXAMPLE, overrides=overrides), tmp_path, str(tmp_path), {}, carry_data=True)
    limits = made.spec["deploymentSpec"]["executors"]["exec-drive-ingest"]["container"]["resources"]
    assert (limits["resourceCpuLimit"], limits["resourceMemoryLimit"]) == ("2", "8Gi")
    assert "kubernetes.set_timeout(ingest_task" in made.source
    assert "kubernetes.set_timeout(drive_ingest_task" not in made.source


@pytest.mark.core
def test_data_on_a_claim_stays_there(tmp_path):
    overrides = ["data.path=/data/rides.csv", "task=binary", "kubeflow.stages.ingest.volumes=[{claim: rides, path: /data}]"]
    made = compile_config(load_config(EXAMPLE, overrides=overrides), tmp_path, str(tmp_path), {}, carry_data=True)
    assert "/data/rides.csv" in made.source
    assert 'kubernetes.mount_pvc(ingest_task, pvc_name="rides", mount_path="/data")' in made.source, "a task by itself"
    assert 'kubernetes.mount_pvc(drive_ingest_task, pvc_name="rides", mount_path="/data")' in made.source


def test_a_tokenizer_travels_to_the_transform_task(tmp_path):
    """Its training task reads it from the transformed examples."""
    overrides = ["data.path=gs://bucket/data.csv", "task=binary", "kubeflow.image=registry.example.org/switchyard:1"]
    config = load_config(EXAMPLE.parents[1] / "reviews" / "pipeline.yaml", overrides=overrides)
    made = compile_config(config, tmp_path / "code", str(tmp_path), {}, carry_data=True, joined=False)
    commands = {k: str(e["container"]["command"]) for k, e in made.spec["deploymentSpec"]["executors"].items()}
    assert [name for name, command in commands.items() if "def build_tokenizer" in command] == ["exec-transform"]
    assert str(tmp_path) not in made.source
