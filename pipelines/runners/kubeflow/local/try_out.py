"""Runs a compiled TFX pipeline on this machine, without a cluster or a config."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from switchyard.components.errors import StageError
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.runners.kubeflow.compiler.compile import CompiledForKubeflow
from switchyard.pipelines.runners.kubeflow.compiler.plan import stages_of
from switchyard.pipelines.runners.kubeflow.local.backend import PRELOADED, RUN, run_pipeline
from switchyard.pipelines.runners.local.process import Job, StageProcesses


def run_compiled(
    compiled: CompiledForKubeflow,
    folder: Path,
    arguments: Mapping[str, Any] | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Runs a compiled pipeline with KFP's local runner, each task in a process that has TFX preloaded.

    Args:
        compiled: result of `compile_tfx_pipeline`.
        folder: folder for artifacts, the cache of finished tasks, and logs. A second run resumes from it.
        arguments: arguments of the pipeline.
        say: receives progress messages; default: writes them to standard error.

    Returns:
        TFX node -> output -> `dsl.Artifact`, for the nodes that ran. Nodes under a false condition are missing.

    Raises:
        UserError, DataGateError, StageError: a task failed; the message names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with StageProcesses(folder / "preload.log", PRELOADED) as processes:
        tasks = _Tasks(compiled, processes, folder, say or _to_stderr)
        if not run_pipeline(compiled.spec, arguments or {}, folder.resolve(), folder / "kfp.log", tasks, containers=False):
            raise tasks.error or StageError(f"KFP's local runner failed. Log: {folder / 'kfp.log'}")
    return tasks.outputs


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class _Tasks:
    """Implements `backend.Tasks`."""

    def __init__(
        self, compiled: CompiledForKubeflow, processes: StageProcesses, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._nodes, self._places = compiled.tasks, compiled.outputs
        self._processes, self._folder, self._say = processes, folder, say
        self._task = ""
        self.outputs: dict[str, dict[str, Any]] = {}
        self.error: Exception | None = None

    def started(self, task: str) -> None:
        self._task = task
        self._say(f"{task}: running")

    def ended(self, task: str, outputs: Mapping[str, Any], *, succeeded: bool) -> None:
        self._say(f"{task}: {'done' if succeeded else 'failed'}")
        if succeeded and task in self._nodes:
            for node in stages_of(self._nodes[task]):
                self.outputs[node] = {}
            places = self._places.get(task, {})
            for key, value in outputs.items():
                node, name = places.get(key, (self._nodes[task], key))
                self.outputs[node][name] = value

    def run_command(self, command: Sequence[str], environment: Mapping[str, str], image: str, volumes: Mapping[str, Any]) -> int:
        log = self._folder / f"{self._task}.log"
        context = RunContext(state=str((self._folder / "state").resolve()))
        job = Job(RUN, list(command), log, context, environment)
        try:
            self._processes.run(job, lambda text: self._say(f"{self._task}: {text}"))
        except Exception as error:
            self.error = type(error)(f"{self._task}: {error}")
            return 1
        return 0
