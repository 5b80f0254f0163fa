"""KFP's local runner with tasks delegated to a `Tasks` object: see `components.compat.kfp_local`."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from switchyard.components.compat.kfp_local import tasks_run_by

# Job target that runs a task in a process.
RUN = "switchyard.pipelines.runners.kubeflow.local.backend:run_in_process"
# Modules that every task's process needs.
PRELOADED = ("kfp.dsl.executor_main", "switchyard.pipelines.runners.kubeflow.task.node")
_one_at_a_time = threading.Lock()


class Tasks(Protocol):
    """Runs the tasks of a pipeline."""

    def started(self, task: str) -> None:
        """Called before a task runs or is found in the cache."""

    def ended(self, task: str, outputs: Mapping[str, Any], *, succeeded: bool) -> None:
        """Called when a task has ended; outputs: name -> `dsl.Artifact` or value."""

    def run_command(self, command: Sequence[str], environment: Mapping[str, str], image: str, volumes: Mapping[str, Any]) -> int:
        """Runs a task's command and returns its exit code."""


def run_pipeline(
    spec: Mapping[str, Any], arguments: Mapping[str, Any], root: Path, log: Path, tasks: Tasks, *, containers: bool
) -> bool:
    """Runs a compiled pipeline; returns whether all its tasks succeeded.

    Args:
        spec: KFP's pipeline spec.
        arguments: arguments of the pipeline.
        root: folder for artifacts and the cache of finished tasks.
        log: file for KFP's output.
        tasks: runs the tasks and receives their results.
        containers: run tasks as containers instead of processes.
    """
    from google.protobuf import json_format
    from kfp import local
    from kfp.local import docker_task_handler, pipeline_orchestrator, subprocess_task_handler
    from kfp.local.orchestrator import task_executor
    from kfp.pipeline_spec import pipeline_spec_pb2

    workspace = root / "kfp-workspace"
    workspace.mkdir(parents=True, exist_ok=True)
    message = json_format.ParseDict(dict(spec), pipeline_spec_pb2.PipelineSpec())
    with (
        _one_at_a_time,
        tasks_run_by(tasks, task_executor, subprocess_task_handler, docker_task_handler),
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


def run_in_process(command: Sequence[str]) -> None:
    """Runs a component in this process, which has TFX imported, like `sh -ec ... python3 -m kfp.dsl.executor_main`.

    Args:
        command: KFP's command: `sh`, `-ec`, the script, the component's source, then the arguments of KFP's executor.
    """
    from kfp.dsl import executor_main

    source, arguments = command[3], list(command[4:])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ephemeral_component.py"
        path.write_text(source, encoding="utf-8")
        sys.argv = ["executor_main", "--component_module_path", str(path), *arguments]
        executor_main.executor_main()
