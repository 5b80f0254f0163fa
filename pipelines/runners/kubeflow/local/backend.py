"""KFP's own local runner, with a seam: what runs a task's command, and what learns how a task ended.

KFP gives no way to plug in a runner, and its subprocess runner pays TFX's imports for every task: its two functions that
start a process or a container are replaced while a pipeline runs, and the one that runs a task is wrapped.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

# What a process does for a task: see `task_process`.
RUN = "switchyard.pipelines.runners.kubeflow.local.task_process:run"
# Modules that every task's process needs.
PRELOADED = ("kfp.dsl.executor_main", "switchyard.pipelines.runners.kubeflow.task.node")
_one_at_a_time = threading.Lock()


class Tasks(Protocol):
    """What runs tasks."""

    def started(self, task: str) -> None:
        """A task is about to run, or to be found in the cache."""

    def ended(self, task: str, outputs: Mapping[str, Any], *, succeeded: bool) -> None:
        """A task ended; outputs: name -> `dsl.Artifact` or value."""

    def run_command(self, command: Sequence[str], environment: Mapping[str, str], image: str, volumes: Mapping[str, Any]) -> int:
        """Runs a task's command to its end and returns its exit code."""


def run_pipeline(
    spec: Mapping[str, Any], arguments: Mapping[str, Any], root: Path, log: Path, tasks: Tasks, *, containers: bool
) -> bool:
    """Runs a compiled pipeline; returns whether all its tasks succeeded.

    Args:
        spec: KFP's pipeline spec.
        arguments: of the pipeline.
        root: where artifacts go; the cache of finished tasks lies there too.
        log: file for what KFP prints.
        tasks: runs them, and learns how they ended.
        containers: they are containers, not processes.
    """
    from google.protobuf import json_format
    from kfp import local
    from kfp.local import pipeline_orchestrator
    from kfp.pipeline_spec import pipeline_spec_pb2

    workspace = root / "kfp-workspace"
    workspace.mkdir(parents=True, exist_ok=True)
    message = json_format.ParseDict(dict(spec), pipeline_spec_pb2.PipelineSpec())
    with (
        _one_at_a_time,
        _replaced(tasks),
        open(log, "a", encoding="utf-8") as out,
        contextlib.redirect_stdout(out),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        runner = local.DockerRunner() if containers else local.SubprocessRunner(use_venv=False)
        local.init(runner, pipeline_root=str(root), workspace_root=str(workspace), raise_on_error=True, enable_caching=True)
        try:
            pipeline_orchestrator.run_local_pipeline(message, dict(arguments))
        except RuntimeError as error:
            if "finished with status" not in str(error):
                raise
            return False
    return True


@contextlib.contextmanager
def _replaced(tasks: Tasks) -> Iterator[None]:
    from kfp.local import docker_task_handler, status, subprocess_task_handler
    from kfp.local.orchestrator import task_executor

    execute: Callable[..., Any] = task_executor.execute_single_task

    def told(**given: Any) -> Any:
        name = given["task_name"]
        tasks.started(name)
        outputs, found = execute(**given)
        tasks.ended(name, outputs, succeeded=found == status.Status.SUCCESS)
        return outputs, found

    def process(full_command: Sequence[str], env_vars: Mapping[str, str] | None = None) -> int:
        return tasks.run_command(full_command, env_vars or {}, "", {})

    def container(client: Any, image: str, command: Sequence[str], volumes: Mapping[str, Any], **given: Any) -> int:
        return tasks.run_command(command, given.get("environment") or {}, image, volumes)

    replacements = (
        (task_executor, "execute_single_task", told),
        (subprocess_task_handler, "run_local_subprocess", process),
        (docker_task_handler, "run_docker_container", container),
    )
    originals = [getattr(module, name) for module, name, _ in replacements]
    for module, name, replacement in replacements:
        setattr(module, name, replacement)
    try:
        yield
    finally:
        for (module, name, _), original in zip(replacements, originals, strict=True):
            setattr(module, name, original)
