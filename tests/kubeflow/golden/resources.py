"""TFX pipeline 'small' for Kubeflow Pipelines, written by `switchyard compile`: do not change it here."""

from kfp import dsl, kubernetes
from kfp.dsl import Artifact, Dataset, Input, Output

IMAGE = "switchyard:1"


# TFX node one.
@dsl.component(base_image="switchyard:1-gpu", install_kfp_package=False)
def one(
    flag: str, loud: str, n: int, weights: str, workspace: str, examples: Output[Dataset], name: Output[Artifact], score: Output[Artifact],
    whole: Output[Artifact],
):
    from switchyard import run_node

    run_node(
        locals(), 'small',
        dict(
          id='one', component='tests.kubeflow.constructs.numbers',
          schemas={'loud': {'valueType': {'booleanType': {}}}, 'weights': {'valueType': {'listType': {}}}},
        ),
    )


# TFX node four.
@dsl.component(base_image=IMAGE, install_kfp_package=False)
def four(
    examples: Input[Dataset], workspace: str, notes: Output[Artifact],
):
    from switchyard import run_node

    run_node(
        locals(), 'small',
        dict(
          id='four', component='tests.kubeflow.constructs.annotate',
        ),
    )


# TFX node three.
@dsl.component(base_image=IMAGE, install_kfp_package=False)
def three(
    examples: Input[Dataset], workspace: str, notes: Output[Artifact],
):
    from switchyard import run_node

    run_node(
        locals(), 'small',
        dict(
          id='three', component='tests.kubeflow.constructs.annotate',
        ),
    )


# TFX node two.
@dsl.component(base_image=IMAGE, install_kfp_package=False)
def two(
    examples: Input[Dataset], workspace: str, notes: Output[Artifact],
):
    from switchyard import run_node

    run_node(
        locals(), 'small',
        dict(
          id='two', component='tests.kubeflow.constructs.annotate',
        ),
    )


def apply_defaults(task: dsl.PipelineTask) -> None:
    """What every task gets."""
    kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", "metadata.labels['pipeline/runid']")
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    kubernetes.set_image_pull_secrets(task, ["registry"])


@dsl.pipeline(name="small", pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="20Gi", kubernetes=dsl.KubernetesWorkspaceConfig(pvcSpecPatch={"accessModes": ["ReadWriteOnce"]}))))
def pipeline():
    """TFX pipeline small."""
    one_task = one(flag='x', loud='true', n=1, weights='[]', workspace=dsl.WORKSPACE_PATH_PLACEHOLDER)
    one_task.set_display_name("one")
    one_task.set_caching_options(enable_caching=False)
    apply_defaults(one_task)
    one_task.set_cpu_request("4")
    one_task.set_cpu_limit("4")
    one_task.set_memory_request("16Gi")
    one_task.set_memory_limit("16Gi")
    one_task.set_accelerator_type("nvidia.com/gpu")
    one_task.set_accelerator_limit(2)
    kubernetes.add_toleration(one_task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    kubernetes.empty_dir_mount(one_task, volume_name="shared-memory", mount_path="/dev/shm", medium="Memory", size_limit="8Gi")
    kubernetes.set_timeout(one_task, seconds=7200)
    kubernetes.add_node_selector(one_task, label_key="pool", label_value="gpu")
    kubernetes.add_toleration(one_task, key="dedicated", operator="Equal", value="ml", effect="NoSchedule")
    one_task.set_retry(num_retries=3, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="8760h")
    one_task.set_env_variable("NCCL_DEBUG", "INFO")
    kubernetes.use_secret_as_env(one_task, secret_name="team", secret_key_to_env={"key": "API_KEY", "user": "API_USER"})
    kubernetes.use_secret_as_volume(one_task, secret_name="team", mount_path="/etc/team")
    kubernetes.mount_pvc(one_task, pvc_name="data", mount_path="/data")
    four_task = four(examples=one_task.outputs["examples"], workspace=dsl.WORKSPACE_PATH_PLACEHOLDER)
    four_task.set_display_name("four")
    apply_defaults(four_task)
    four_task.set_env_variable("SWITCHYARD_LAST_STAGES", "four,three,two")
    four_task.set_accelerator_type("habana.ai/gaudi")
    four_task.set_accelerator_limit(8)
    kubernetes.add_toleration(four_task, key="habana.ai/gaudi", operator="Exists", effect="NoSchedule")
    four_task.set_retry(num_retries=1, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="8760h")
    three_task = three(examples=one_task.outputs["examples"], workspace=dsl.WORKSPACE_PATH_PLACEHOLDER)
    three_task.set_display_name("three")
    apply_defaults(three_task)
    three_task.set_env_variable("SWITCHYARD_LAST_STAGES", "four,three,two")
    three_task.set_accelerator_type("amd.com/gpu")
    three_task.set_accelerator_limit(1)
    kubernetes.add_toleration(three_task, key="amd.com/gpu", operator="Exists", effect="NoSchedule")
    kubernetes.empty_dir_mount(three_task, volume_name="shared-memory", mount_path="/dev/shm", medium="Memory")
    two_task = two(examples=one_task.outputs["examples"], workspace=dsl.WORKSPACE_PATH_PLACEHOLDER)
    two_task.set_display_name("two")
    apply_defaults(two_task)
    two_task.set_env_variable("SWITCHYARD_LAST_STAGES", "four,three,two")
    two_task.set_accelerator_type("google.com/tpu")
    two_task.set_accelerator_limit(4)
    kubernetes.add_node_selector(two_task, label_key="cloud.google.com/gke-tpu-accelerator", label_value="tpu-v5-lite-podslice")
    kubernetes.add_node_selector(two_task, label_key="cloud.google.com/gke-tpu-topology", label_value="2x2")
    kubernetes.add_toleration(two_task, key="google.com/tpu", operator="Exists", effect="NoSchedule")
