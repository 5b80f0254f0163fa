"""The compiled pipeline on this machine, by KFP's own local runner: `kfp-local` in processes, `kfp-docker` in containers.

For trying out on a laptop exactly what a cluster will be given. Progress, tracking and result are those of a local run.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from switchyard.components.errors import CancelledError, StageError, SwitchyardError
from switchyard.components.text.escaping import sqlite_file
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.runners.contract import PRODUCER_RUN_ID, CompiledPipeline, RunResult, StageResult, StageStatus
from switchyard.pipelines.runners.kubeflow.compiler.plan import stage_names, stages_of
from switchyard.pipelines.runners.kubeflow.local.backend import run_pipeline
from switchyard.pipelines.runners.kubeflow.local.containers import Containers
from switchyard.pipelines.runners.kubeflow.local_inputs import local_inputs
from switchyard.pipelines.runners.local.process import Job
from switchyard.pipelines.runners.local.runner import LocalRunner
from switchyard.pipelines.runners.outcome import prefix_stage, run_result, track_result
from switchyard.pipelines.runners.tracking.runs import RunTracker, tracking_uri

_log = logging.getLogger(__name__)
_DRIVER = "drive-"
# What a stage says last, see `runtime`.
DONE = re.compile(r"done in ([\d.]+) s")


class KfpLocalRunner(LocalRunner):
    """Tasks as processes, forked from one that has imported TFX."""

    name = "kfp-local"
    _also_preloaded = ("kfp.dsl.executor_main", "switchyard.pipelines.runners.kubeflow.task.node")
    _remembers = False
    _containers = False

    def submit(self, compiled: CompiledPipeline) -> RunResult:
        """See Runner."""
        from switchyard.pipelines.terminal.output import quiet

        if self._processes is None:
            raise RuntimeError("compile first")
        with quiet(self._logs / "runner.log"), self._display:
            self._display.stages(compiled.stages)
            return _Run(self, compiled).run()

    def _start_engine(self, config: PipelineConfig) -> None:
        """None: a task goes by what is compiled, as it does in a pod."""

    def _compile(self, config: PipelineConfig) -> CompiledPipeline:
        from switchyard.pipelines.runners.kubeflow.compiler.from_config import compile_config

        root = self._workspace.root / "kubeflow"
        compiled = compile_config(config, self._workspace.code, str(root), {}, carry_data=False)
        (self._logs / "kfp.yaml").write_text(compiled.to_yaml(), encoding="utf-8")
        return CompiledPipeline(config, compiled, compiled.waits)


class KfpDockerRunner(KfpLocalRunner):
    """Tasks as containers of the pipeline's image, by Docker's API (Docker, or podman's socket in DOCKER_HOST)."""

    name = "kfp-docker"
    _containers = True

    def _compile(self, config: PipelineConfig) -> CompiledPipeline:
        compiled = super()._compile(config)
        Containers.check({e["container"]["image"] for e in compiled.program.spec["deploymentSpec"]["executors"].values()})
        return compiled


class _Run:
    """One run; KFP's local runner calls it, see `local_backend.Tasks`."""

    def __init__(self, runner: KfpLocalRunner, compiled: CompiledPipeline) -> None:
        self._runner, self._compiled = runner, compiled
        self._workspace, self._display, self._logs = runner._workspace, runner._display, runner._logs
        self._tracker = RunTracker(compiled.config, self._workspace, self._logs.name, runner._trainer, runner._source)
        tasks: Mapping[str, str] = compiled.program.tasks
        # KFP's task -> its stages.
        self._stages: dict[str, list[str]] = {task: stages_of(nodes) for task, nodes in tasks.items()}
        for task, nodes in tasks.items():
            self._stages |= {f"{_DRIVER}{n}": [s] for n, s in zip(stage_names(task), stages_of(nodes), strict=True)}
        self._started: dict[str, float] = {}
        self._contexts: dict[str, RunContext] = {}
        # Of a task that does several: the one that it is at, and the seconds of those that are done.
        self._current, self._done = "", dict[str, float]()
        self._executed: set[str] = set()
        self._task = ""
        self._results: dict[str, StageResult] = {}
        self._outputs: dict[str, dict[str, str]] = {}
        # Stage -> what its last try ended with.
        self._errors: dict[str, SwitchyardError] = {}
        self._in_containers = Containers(self._mounts()) if runner._containers else None

    def run(self) -> RunResult:
        root = self._workspace.root / "kubeflow"
        done, cancelled = False, False
        try:
            done = run_pipeline(
                self._compiled.program.spec, {}, root, self._logs / "kfp.log", self, containers=self._runner._containers
            )
        except KeyboardInterrupt:
            cancelled = True
        except BaseException as error:
            self._tracker.ended("FAILED", {"switchyard.status": "failed", "switchyard.why": f"{type(error).__name__}: {error}"})
            raise
        if not done and not cancelled and not self._errors:
            self._errors[""] = StageError(f"KFP's local runner failed. Log: {self._logs / 'kfp.log'}")
        result = run_result(
            self._compiled.config.name,
            self._runner._trainer,
            self._tracker,
            self._compiled.stages,
            self._results,
            self._outputs,
            list(self._errors.values()),
            cancelled=cancelled,
        )
        track_result(self._tracker, result, self._display, self._workspace)
        return result

    def started(self, task: str) -> None:
        self._task, self._current = task, ""
        for number, stage in enumerate(self._stages.get(task, [])):
            if stage not in self._contexts:
                self._contexts[stage] = self._tracker.stage_started(stage)
            if not number:
                self._begun(stage)

    def _begun(self, stage: str) -> None:
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
            if self._in_containers:
                self._in_containers.run(stages, image, command, {**environment, **context.for_child()}, volumes, log, say)
            elif self._runner._processes:
                job = Job(
                    "switchyard.pipelines.runners.kubeflow.local.task_process:run", list(command), log, context, environment
                )
                self._runner._processes.run(job, say)
        except Exception as error:
            if not isinstance(error, SwitchyardError):
                _log.exception("%s failed", self._current)
            self._errors[self._current] = prefix_stage(self._current, error)
            return 1
        for stage in stages:
            self._errors.pop(stage, None)
        return 0

    def _heard(self, stage: str, text: str) -> None:
        """Takes from what a task of several stages says how far it is."""
        if stage != self._current or stage not in self._started:
            self._begun(stage)
        if found := DONE.fullmatch(text):
            self._done[stage] = float(found[1])
            self._display.status(stage, "ran", self._done[stage])

    def _mounts(self) -> dict[str, str]:
        """Folders that containers see at their own paths -> Docker's mode."""
        config = self._compiled.config
        found = {str(self._workspace.root): "rw"}
        uri = tracking_uri(config, self._workspace)
        if database := sqlite_file(uri):
            found[str(database.absolute().parent)] = "rw"
        for _, _, files in local_inputs(config):
            for file in files:
                found.setdefault(str(file.parent), "ro")
        return found
