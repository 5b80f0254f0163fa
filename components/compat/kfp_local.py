"""Adds hooks to KFP's local runner: for running a task's command, and for the start and end of a task.

KFP has no plug-in interface for runners, and its subprocess runner repeats TFX's imports for every task. While a pipeline runs,
the two functions that start a process or a container are replaced, and the one that runs a task is wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from switchyard.components.compat.patch import Private

# Applied to every version of KFP: without it nothing is tracked, and a failed container counts as succeeded.
PRIVATE = Private(
    "kfp",
    ("2.17",),
    (
        "kfp.local.orchestrator.task_executor:execute_single_task",
        "kfp.local.subprocess_task_handler:run_local_subprocess",
        "kfp.local.docker_task_handler:run_docker_container",
        "kfp.local.pipeline_orchestrator:run_local_pipeline",
    ),
    "https://github.com/kubeflow/pipelines/blob/2.17.0/sdk/python/kfp/local/subprocess_task_handler.py",
)


@contextmanager
def tasks_run_by(tasks: Any, executor: Any, processes: Any, containers: Any) -> Iterator[None]:
    """Runs the tasks of KFP's local runner through `tasks` while the context is active.

    Args:
        tasks: a `pipelines.runners.kubeflow.local.backend.Tasks`.
        executor: KFP's module `kfp.local.orchestrator.task_executor`.
        processes: KFP's module `kfp.local.subprocess_task_handler`.
        containers: KFP's module `kfp.local.docker_task_handler`.
    """
    execute: Callable[..., Any] = executor.execute_single_task

    def execute_and_report(**given: Any) -> Any:
        name = given["task_name"]
        tasks.started(name)
        outputs, found = execute(**given)
        tasks.ended(name, outputs, succeeded=found.name == "SUCCESS")
        return outputs, found

    def process(full_command: Sequence[str], env_vars: Mapping[str, str] | None = None) -> int:
        code: int = tasks.run_command(full_command, env_vars or {}, "", {})
        return code

    def container(client: Any, image: str, command: Sequence[str], volumes: Mapping[str, Any], **given: Any) -> int:
        code: int = tasks.run_command(command, given.get("environment") or {}, image, volumes)
        return code

    with ExitStack() as replaced:
        replaced.enter_context(mock.patch.object(executor, "execute_single_task", execute_and_report))
        replaced.enter_context(mock.patch.object(processes, "run_local_subprocess", process))
        replaced.enter_context(mock.patch.object(containers, "run_docker_container", container))
        yield
