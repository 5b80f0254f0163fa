"""Generates the source of the KFP SDK calls that set a stage's resources."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from switchyard.pipelines.config.kubeflow import GPUS, StageResources, Toleration, Workspace, device, seconds

# Argo measures the maximum duration from the start of the first attempt; a shorter value would prevent retries.
_WHOLE_TIME = "8760h"
# Environment variable and pod field of `RunContext.kfp_run_id`.
_RUN_ID, _RUN_ID_FIELD = "KFP_RUN_ID", "metadata.labels['pipeline/runid']"


@dataclass(frozen=True)
class PipelineResources:
    """Settings shared by all tasks: see `KubeflowConfig`."""

    image_pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    workspace: Workspace | None = None


def pipeline_config_source(resources: PipelineResources) -> str:
    """Returns the source of the pipeline's `pipeline_config`; empty when none is needed."""
    workspace = resources.workspace
    if not workspace:
        return ""
    # A stock KFP has no default access modes and rejects a claim without them.
    claim: dict[str, object] = {"accessModes": list(workspace.access_modes)}
    if workspace.storage_class_name:
        claim["storageClassName"] = workspace.storage_class_name
    return (
        f"dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size={_text(workspace.size)}, "
        f"kubernetes=dsl.KubernetesWorkspaceConfig(pvcSpecPatch={json.dumps(claim)})))"
    )


def shared_lines(task: str, shared: PipelineResources, environment: Mapping[str, str]) -> list[str]:
    """Returns the calls for every task, on the variable `task`."""
    lines = [f"{task}.set_env_variable({_text(k)}, {_text(v)})" for k, v in environment.items()]
    lines.append(f"kubernetes.use_field_path_as_env({task}, {_text(_RUN_ID)}, {_text(_RUN_ID_FIELD)})")
    if shared.image_pull_policy:
        lines.append(f"kubernetes.set_image_pull_policy({task}, {_text(shared.image_pull_policy)})")
    if shared.image_pull_secrets:
        lines.append(f"kubernetes.set_image_pull_secrets({task}, {json.dumps(list(shared.image_pull_secrets))})")
    return lines


def resource_lines(task: str, stage: StageResources, *, main: bool) -> list[str]:
    """Returns the calls for a stage's task, on the variable `task`.

    Args:
        task: name of the variable.
        stage: resources of the stage.
        main: the task runs the executor; a driver gets neither accelerator nor timeout.
    """
    lines = []
    if stage.cpu:
        lines += [f"{task}.set_cpu_request({_text(stage.cpu)})", f"{task}.set_cpu_limit({_text(stage.cpu)})"]
    if stage.memory:
        lines += [f"{task}.set_memory_request({_text(stage.memory)})", f"{task}.set_memory_limit({_text(stage.memory)})"]
    if main:
        lines += _device_lines(task, stage)
        if stage.timeout:
            lines.append(f"kubernetes.set_timeout({task}, seconds={seconds(stage.timeout)})")
    for label, value in stage.node_selector.items():
        lines.append(f"kubernetes.add_node_selector({task}, label_key={_text(label)}, label_value={_text(value)})")
    lines += [_toleration(task, t) for t in stage.tolerations]
    if stage.retries and stage.retries.count:
        r = stage.retries
        lines.append(
            f"{task}.set_retry(num_retries={r.count}, backoff_duration={_text(r.backoff)}, backoff_factor={r.factor}, "
            f"backoff_max_duration={_text(_WHOLE_TIME)})"
        )
    lines += [f"{task}.set_env_variable({_text(k)}, {_text(v)})" for k, v in stage.environment.items()]
    by_secret: dict[str, dict[str, str]] = {}
    for variable, secret in stage.secrets.items():
        by_secret.setdefault(secret.name, {})[secret.key] = variable
    for name, keys in by_secret.items():
        lines.append(f"kubernetes.use_secret_as_env({task}, secret_name={_text(name)}, secret_key_to_env={json.dumps(keys)})")
    for path, name in stage.secret_files.items():
        lines.append(f"kubernetes.use_secret_as_volume({task}, secret_name={_text(name)}, mount_path={_text(path)})")
    for volume in stage.volumes:
        lines.append(f"kubernetes.mount_pvc({task}, pvc_name={_text(volume.claim)}, mount_path={_text(volume.path)})")
    return lines


def _device_lines(task: str, stage: StageResources) -> list[str]:
    lines = []
    memory = stage.shared_memory
    if stage.accelerator:
        found = device(stage.accelerator)
        lines += [
            f"{task}.set_accelerator_type({_text(found.resource)})",
            f"{task}.set_accelerator_limit({found.count})",
        ]
        for label, value in found.node_selector.items():
            lines.append(f"kubernetes.add_node_selector({task}, label_key={_text(label)}, label_value={_text(value)})")
        # Clouds taint such nodes with the resource's name.
        lines.append(_toleration(task, Toleration(key=found.resource, operator="Exists", effect="NoSchedule")))
        if memory is None and found.resource in GPUS.values():
            memory = ""
    if memory is not None:
        # Docker's default of 64 MB is too small for parallel data-loading processes.
        size = f", size_limit={_text(memory)}" if memory else ""
        lines.append(
            f'kubernetes.empty_dir_mount({task}, volume_name="shared-memory", mount_path="/dev/shm", medium="Memory"{size})'
        )
    return lines


def _toleration(task: str, toleration: Toleration) -> str:
    given = {k: v for k, v in toleration.model_dump().items() if v is not None}
    return f"kubernetes.add_toleration({task}, {', '.join(f'{k}={json.dumps(v)}' for k, v in given.items())})"


def _text(value: str) -> str:
    return json.dumps(value)
