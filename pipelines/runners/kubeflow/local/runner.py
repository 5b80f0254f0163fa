"""Runs the compiled pipeline on this machine with KFP's local runner: `kfp-local` in processes, `kfp-docker` in containers.

It tests on a laptop the pipeline that a cluster gets. Progress, tracking and result are those of a local run.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from switchyard.components.errors import CancelledError, StageError, SwitchyardError, UserError
from switchyard.components.text.escaping import sqlite_file
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.runners.contract import PRODUCER_RUN_ID, CompiledPipeline, RunResult, StageResult, StageStatus
from switchyard.pipelines.runners.kubeflow.compiler.compile import CompiledForKubeflow
from switchyard.pipelines.runners.kubeflow.compiler.plan import stage_names, stages_of
from switchyard.pipelines.runners.kubeflow.extra import require_kfp
from switchyard.pipelines.runners.kubeflow.local.backend import PRELOADED, RUN, run_pipeline
from switchyard.pipelines.runners.kubeflow.local.containers import Containers
from switchyard.pipelines.runners.kubeflow.local_inputs import local_inputs
from switchyard.pipelines.runners.local.process import Job, StageProcesses
from switchyard.pipelines.runners.outcome import prefix_stage
from switchyard.pipelines.runners.this_machine import MachineRun, MachineRunner
from switchyard.pipelines.runners.tracking.runs import tracking_uri
from switchyard.pipelines.terminal.progress import Display
from switchyard.pipelines.workspace import Workspace

_log = logging.getLogger(__name__)
_DRIVER = "drive-"
# Last progress message of a stage, see `task.runtime`.
DONE = re.compile(r"done in ([\d.]+) s")


class KfpLocalRunner(MachineRunner[CompiledForKubeflow]):
    """A runner whose tasks are processes forked from one that has imported TFX."""

    name = "kfp-local"
    _also_preloaded = PRELOADED

    def _check_extras(self, config: PipelineConfig) -> None:
        require_kfp()
        super()._check_extras(config)

    def _compile(self, config: PipelineConfig) -> CompiledPipeline[CompiledForKubeflow]:
        from switchyard.pipelines.runners.kubeflow.compiler.from_config import compile_config

        root = self._workspace.root / "kubeflow"
        compiled = compile_config(config, self._workspace.code, str(root), {}, carry_data=False)
        (self._logs / "kfp.yaml").write_text(compiled.to_yaml(), encoding="utf-8")
        return CompiledPipeline(config, compiled, compiled.waits)

    def _submit(self, compiled: CompiledPipeline[CompiledForKubeflow], processes: StageProcesses) -> RunResult:
        return _Run(compiled, self._workspace, self._display, self._logs, self._trainer, self._source, processes).run()


class KfpDockerRunner(KfpLocalRunner):
    """A runner whose tasks are containers of the pipeline's image, by Docker's API (or podman's socket in DOCKER_HOST)."""

    name = "kfp-docker"

    def _check_extras(self, config: PipelineConfig) -> None:
        super()._check_extras(config)
        if config.signing:
            raise UserError(
                "signing.key: kfp-docker does not pass private keys to its containers; use --runner kfp-local or local, or set "
                "signing=null"
            )

    def _compile(self, config: PipelineConfig) -> CompiledPipeline[CompiledForKubeflow]:
        compiled = super()._compile(config)
        Containers.check({e["container"]["image"] for e in compiled.program.spec["deploymentSpec"]["executors"].values()})
        return compiled

    def _submit(self, compiled: CompiledPipeline[CompiledForKubeflow], processes: StageProcesses) -> RunResult:
        containers = Containers(mounts(compiled.config, self._workspace))
        return _Run(compiled, self._workspace, self._display, self._logs, self._trainer, self._source, containers).run()


class _Run(MachineRun[CompiledForKubeflow]):
    """One run; implements `backend.Tasks` for KFP's local runner."""

    def __init__(
        self,
        compiled: CompiledPipeline[CompiledForKubeflow],
        workspace: Workspace,
        display: Display,
        logs: Path,
        trainer: str,
        source: Path | None,
        work: StageProcesses | Containers,
    ) -> None:
        super().__init__(compiled, workspace, display, logs, trainer, source)
        self._work = work
        tasks: Mapping[str, str] = compiled.program.tasks
        # KFP task -> its stages.
        self._stages: dict[str, list[str]] = {task: stages_of(nodes) for task, nodes in tasks.items()}
        for task, nodes in tasks.items():
            self._stages |= {f"{_DRIVER}{n}": [s] for n, s in zip(stage_names(task), stages_of(nodes), strict=True)}
        self._started: dict[str, float] = {}
        self._contexts: dict[str, RunContext] = {}
        # Current stage of the running task, and finished stages of joint tasks -> seconds.
        self._current, self._done = "", dict[str, float]()
        self._executed: set[str] = set()
        self._task = ""

    def _run_stages(self) -> None:
        root, log, containers = self._workspace.root / "kubeflow", self._logs / "kfp.log", isinstance(self._work, Containers)
        if not run_pipeline(self._compiled.program.spec, {}, root, log, self, containers=containers) and not self._errors:
            self._errors[""] = StageError(f"KFP's local runner failed. Log: {log}")

    def started(self, task: str) -> None:
        self._task, self._current = task, ""
        for number, stage in enumerate(self._stages.get(task, [])):
            if stage not in self._contexts:
                self._contexts[stage] = self._tracker.stage_started(stage)
            if not number:
                self._stage_started(stage)

    def _stage_started(self, stage: str) -> None:
        self._current = stage
        if stage not in self._started:
            self._started[stage] = time.monotonic()
            self._display.status(stage, "running")

    def ended(self, task: str, outputs: Mapping[str, Any], *, succeeded: bool) -> None:
        stages = self._stages.get(task)
        if stages is None or (succeeded and task not in self._compiled.program.tasks):
            return
        self._tracker.log_file(self._log(task), "logs")
        artifacts = self._by_stage(task, {k: a for k, a in outputs.items() if hasattr(a, "uri")})
        for stage in stages:
            if succeeded or stage in self._done:
                self._ended(stage, "ran" if task in self._executed else "cached", artifacts.get(stage, {}))
            elif stage == self._current:
                status: StageStatus = "cancelled" if isinstance(self._errors.get(stage), CancelledError) else "failed"
                self._ended(stage, status, {})
            else:
                self._tracker.stage_never_began(stage)
                del self._contexts[stage]

    def _ended(self, stage: str, status: StageStatus, artifacts: Mapping[str, Any]) -> None:
        began = self._started.setdefault(stage, time.monotonic())
        seconds = self._done.get(stage, time.monotonic() - began)
        self._results[stage] = StageResult(status, round(seconds, 2))
        if artifacts:
            self._outputs[stage] = {k: a.uri for k, a in artifacts.items()}
        producer_run_id = next((a.metadata[PRODUCER_RUN_ID] for a in artifacts.values() if PRODUCER_RUN_ID in a.metadata), None)
        if stage not in self._done:
            self._display.status(stage, status, seconds)
        self._tracker.stage_ended(
            stage,
            status,
            seconds,
            producer_run_id=producer_run_id if status == "cached" else None,
            error=str(self._errors[stage]) if stage in self._errors else None,
        )

    def _by_stage(self, task: str, artifacts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        places = self._compiled.program.outputs.get(task)
        found: dict[str, dict[str, Any]] = {}
        for key, artifact in artifacts.items():
            stage, name = places[key] if places else (self._stages[task][0], key)
            found.setdefault(stage, {})[name] = artifact
        return found

    def _log(self, task: str) -> Path:
        stages = self._stages.get(task, [task])
        return self._logs / (f"{stages[0]}.log" if len(stages) == 1 else f"{task}.log")

    def run_command(self, command: Sequence[str], environment: Mapping[str, str], image: str, volumes: Mapping[str, Any]) -> int:
        stages = self._stages.get(self._task, [self._task])
        joint = len(stages) > 1
        self._executed.add(self._task)
        log = self._log(self._task)
        own = {s: self._contexts.get(s) or RunContext(state=str(self._workspace.state)) for s in stages}
        context = RunContext.together(own) if joint else own[stages[0]]
        self._current = stages[0]
        for stage in stages:
            self._done.pop(stage, None)

        def say(text: str) -> None:
            if not joint:
                self._display.say(stages[0], text)
                return
            stage, _, text = text.partition(": ")
            self._heard(stage, text)
            if stage not in self._done:
                self._display.say(stage, text)

        try:
            if isinstance(self._work, Containers):
                given = {**environment, **context.for_child()}
                self._work.run(stages, image, command, given, volumes, log, say)
            else:
                self._work.run(Job(RUN, list(command), log, context, environment), say)
        except Exception as error:
            if not isinstance(error, SwitchyardError):
                _log.exception("%s failed", self._current)
            self._errors[self._current] = prefix_stage(self._current, error)
            return 1
        for stage in stages:
            self._errors.pop(stage, None)
        return 0

    def _heard(self, stage: str, text: str) -> None:
        """Updates the current and finished stages of a joint task from a progress message."""
        if stage != self._current or stage not in self._started:
            self._stage_started(stage)
        if found := DONE.fullmatch(text):
            self._done[stage] = float(found[1])
            self._display.status(stage, "ran", self._done[stage])


def mounts(config: PipelineConfig, workspace: Workspace) -> dict[str, str]:
    """Returns folders to mount at the same path in containers -> Docker's mode (`rw` or `ro`)."""
    found = {str(workspace.root): "rw"}
    if database := sqlite_file(tracking_uri(config, workspace)):
        found[str(database.absolute().parent)] = "rw"
    for _, _, files in local_inputs(config):
        for file in files:
            found.setdefault(str(file.parent), "ro")
    return found
