"""LocalRunner: the pipeline's nodes on this machine, each in a process of its own, independent ones side by side.

TFX's own launcher does driver, cache, executor and publishing; here are order, processes, progress and tracking.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import shlex
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from components.errors import (
    EXIT_BAD_INPUT,
    EXIT_DATA_GATE,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_NOT_BLESSED,
    DataGateError,
    StageError,
    TrainingError,
    UserError,
)
from components.evaluation.results import Evaluation
from components.training.registry import TRAINERS
from pipelines.config import PipelineConfig
from pipelines.preflight import check_inputs
from pipelines.runners.contract import CompiledPipeline, Runner, RunResult, StageResult, StageStatus
from pipelines.runners.progress_display import Display, make_display
from pipelines.runners.quiet import quiet
from pipelines.runners.stage_operator import StageOperator
from pipelines.runners.stage_process import Job, StageProcesses
from pipelines.runners.workspace import Workspace

_log = logging.getLogger(__name__)

# What Beam's DirectRunner falls back to; naming it keeps Beam from trying to download another one first.
BEAM_ARGS = ("--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",)


# Several runs of one process may start in the same second.
_numbers = itertools.count(1)


class LocalRunner(Runner):
    """Runs in `workspace`; a second run of the same thing finds every stage in the cache. `only`: these stages, not all."""

    name = "local"

    def __init__(
        self, workspace: Workspace, console: Console, source: Path | None = None, only: Collection[str] | None = None
    ) -> None:
        workspace.create()
        self._workspace = workspace
        self._source = source
        self._only = only
        self._logs = workspace.logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{next(_numbers)}"
        self._logs.mkdir(parents=True)
        self._display: Display = make_display(console)
        self._processes: StageProcesses | None = None
        self._trainer = ""

    def compile(self, config: PipelineConfig) -> CompiledPipeline:
        """See Runner. Also checks data, code and devices (in a child process), which takes some seconds."""
        # Before the frameworks are loaded: most mistakes are found within a second.
        with quiet(self._logs / "runner.log"):
            config = check_inputs(config, self._workspace.code)
        trainers = [TRAINERS[f] for f in config.trainer.frameworks if f in TRAINERS]
        self._processes = StageProcesses(self._logs / "preload.log", trainers)
        with quiet(self._logs / "runner.log"), self._display:
            self._processes.warm()
            self._display.status("check", "running")
            started = time.monotonic()
            try:
                with ThreadPoolExecutor(1) as pool:
                    # TFX's import takes as long as the child's: at the same time.
                    imports = pool.submit(_import)
                    job = Job(
                        "pipelines.preflight:check_environment", (config, self._workspace.code), self._logs / "check.log", {}
                    )
                    found = self._processes.run(job, partial(self._display.say, "check"))
                    imports.result()
            except BaseException:
                self._display.status("check", "failed", time.monotonic() - started)
                raise
            self._display.status("check", "ran", time.monotonic() - started)
        self._trainer = ", ".join(found["trainers"])
        with quiet(self._logs / "runner.log"):
            return self._compile(config)

    def submit(self, compiled: CompiledPipeline) -> RunResult:
        """See Runner."""
        if self._processes is None:
            raise RuntimeError("compile first")
        with quiet(self._logs / "runner.log"), self._display:
            self._display.stages(compiled.stages)
            return _LocalRun(
                compiled, self._workspace, self._processes, self._display, self._logs, self._trainer, self._source
            ).run()

    def cancel(self) -> None:
        """Stops the children of a run that is being given up."""
        if self._processes:
            self._processes.cancel()

    def _compile(self, config: PipelineConfig) -> CompiledPipeline:
        from tfx.dsl.compiler.compiler import Compiler

        from pipelines.definition import UNCACHED, create_pipeline

        pipeline = create_pipeline(
            config,
            pipeline_root=str(self._workspace.artifacts),
            code_store=self._workspace.code,
            metadata_path=str(self._workspace.metadata),
            beam_pipeline_args=BEAM_ARGS,
            only=self._only,
        )
        ir = Compiler().compile(pipeline)
        stages = {}
        for node in ir.nodes:
            stage = node.pipeline_node.node_info.id
            stages[stage] = tuple(node.pipeline_node.upstream_nodes)
            if stage in UNCACHED:
                node.pipeline_node.execution_options.caching_options.enable_cache = False
        return CompiledPipeline(config, ir, stages)


class _LocalRun:
    """One run: its stages, its tracking, its outcome."""

    def __init__(
        self,
        compiled: CompiledPipeline,
        workspace: Workspace,
        processes: StageProcesses,
        display: Display,
        logs: Path,
        trainer: str,
        source: Path | None,
    ) -> None:
        from tfx.orchestration.local import runner_utils
        from tfx.orchestration.portable import runtime_parameter_utils

        from pipelines.runners.metadata_access import LockedMetadata
        from pipelines.runners.run_tracker import RunTracker

        self._compiled, self._processes, self._display, self._logs = compiled, processes, display, logs
        self._workspace, self._trainer = workspace, trainer
        runtime_parameter_utils.substitute_runtime_parameter(compiled.ir, {"pipeline-run-id": logs.name})
        self._deployment = runner_utils.extract_local_deployment_config(compiled.ir)
        self._metadata = LockedMetadata(workspace.metadata, workspace.metadata_lock)
        self._tracker = RunTracker(compiled.config, workspace, logs.name, trainer, source)
        self._results: dict[str, StageResult] = {}
        self._outputs: dict[str, dict[str, Any]] = {}
        self._errors: list[Exception] = []

    def run(self) -> RunResult:
        try:
            self._run_stages()
        except KeyboardInterrupt:
            self._processes.cancel()
            self._tracker.ended("KILLED", {}, {"switchyard.status": "cancelled"})
            raise
        result = self._result()
        self._tracker.ended(
            "FAILED" if result.status == "failed" else "FINISHED",
            dict(result.metrics),
            {
                "switchyard.status": result.status,
                "blessed": str(result.blessed).lower(),
                **({"switchyard.why": result.error} if result.error else {}),
            },
        )
        self._tell_about_tracking()
        return result

    def _run_stages(self) -> None:
        waiting = dict(self._compiled.stages)
        nodes = {n.pipeline_node.node_info.id: n.pipeline_node for n in self._compiled.ir.nodes}
        pool = ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2), thread_name_prefix="stage")
        running: dict[Future[None], str] = {}
        try:
            while waiting or running:
                ready = [s for s, needs in waiting.items() if all(map(self._succeeded, needs))] if not self._errors else []
                for stage in ready:
                    del waiting[stage]
                    running[pool.submit(self._run_stage, nodes[stage])] = stage
                if not running:
                    break
                # A timeout, so that Ctrl-C is seen.
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    error = future.exception()
                    if isinstance(error, Exception):
                        self._errors.append(error)
                    elif error:
                        raise error
        except BaseException:
            self._processes.cancel()
            raise
        finally:
            # What runs beside a failed stage is let finish: the next run finds it in the cache.
            pool.shutdown(wait=True)

    def _succeeded(self, stage: str) -> bool:
        # A failed stage has its result a moment before its error is seen here.
        return stage in self._results and self._results[stage].status != "failed"

    def _run_stage(self, node: Any) -> None:
        stage = node.node_info.id
        started = time.monotonic()
        environment = self._tracker.stage_started(stage)
        self._display.status(stage, "running")
        try:
            status, self._outputs[stage] = self._launch(node, environment)
        except Exception as error:
            self._finish(stage, "failed", started, error=str(error))
            if not isinstance(error, UserError | DataGateError | TrainingError | StageError):
                _log.exception("%s failed", stage)
                error = StageError(f"{type(error).__name__}: {error}")
            if isinstance(error, DataGateError):
                raise
            raise type(error)(f"{stage}: {error}") from error
        self._finish(stage, status, started)

    def _launch(self, node: Any, environment: dict[str, str]) -> tuple[StageStatus, dict[str, Any]]:
        from tfx.orchestration.local import runner_utils
        from tfx.orchestration.portable import launcher
        from tfx.proto.orchestration import executable_spec_pb2

        from pipelines.runners.metadata_access import CACHED, COMPLETE

        stage = node.node_info.id
        operator = partial(
            StageOperator,
            self._processes,
            self._logs / f"{stage}.log",
            self._workspace.state,
            environment,
            partial(self._display.say, stage),
        )
        operators = {
            executable_spec_pb2.PythonClassExecutableSpec: operator,
            executable_spec_pb2.BeamExecutableSpec: operator,
        }
        info = launcher.Launcher(
            pipeline_node=node,
            mlmd_connection=self._metadata,
            pipeline_info=self._compiled.ir.pipeline_info,
            pipeline_runtime_spec=self._compiled.ir.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(self._deployment, stage),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(self._deployment, stage),
            custom_executor_operators=operators,
        ).launch()
        if info is None or info.execution_id is None:
            raise StageError("TFX's launcher skipped it: an input is not there")
        state, outputs = self._metadata.outcome(info.execution_id)
        if state not in (CACHED, COMPLETE):
            raise StageError(f"TFX's launcher left it in state {state}. Log: {self._logs / 'runner.log'}")
        return ("cached" if state == CACHED else "ran"), outputs

    def _finish(self, stage: str, status: StageStatus, started: float, error: str | None = None) -> None:
        from pipelines.runners.metadata_access import WORKED_IN

        seconds = time.monotonic() - started
        self._results[stage] = StageResult(status, round(seconds, 2))
        self._display.status(stage, status, seconds)
        worked_in = None
        if status == "cached":
            artifact = next(iter(self._outputs[stage].values()))
            worked_in = artifact.custom_properties[WORKED_IN].string_value or None
        self._tracker.log_file(self._logs / f"{stage}.log", "logs")
        self._tracker.stage_ended(stage, status, seconds, worked_in=worked_in, error=error)

    def _result(self) -> RunResult:
        evaluation, registration = self._evaluation(), self._registration()
        error, code = None, EXIT_DONE
        status = "blessed"
        if self._errors:
            first = self._errors[0]
            status, error = "failed", str(first)
            code = EXIT_BAD_INPUT if isinstance(first, UserError) else EXIT_FAILED
            if isinstance(first, DataGateError):
                status, code = "stopped_by_data_gate", EXIT_DATA_GATE
        elif evaluation is None:
            status = "done"
        elif not evaluation.blessed:
            status, error, code = "not_blessed", "not blessed: " + "; ".join(evaluation.failures), EXIT_NOT_BLESSED
        return RunResult(
            pipeline=self._compiled.config.name,
            status=status,
            trainer=evaluation.best if evaluation else self._trainer,
            mlflow_run_id=self._tracker.run_id,
            mlflow_experiment_id=self._tracker.experiment_id,
            blessed=evaluation.blessed if evaluation else None,
            metrics=evaluation.metrics if evaluation else {},
            stages={s: self._results[s] for s in self._compiled.stages if s in self._results},
            model_version=registration.get("version"),
            champion=registration.get("champion"),
            evaluation=evaluation,
            outputs={s: {k: a.uri for k, a in by_key.items()} for s, by_key in self._outputs.items()},
            note=_note(registration),
            error=error,
            exit_code=code,
        )

    def _evaluation(self) -> Evaluation | None:
        if "evaluation" not in self._outputs:
            return None
        return Evaluation.load(self._outputs["evaluation"]["evaluation"].uri)

    def _registration(self) -> dict[str, Any]:
        if "registry" not in self._outputs:
            return {}
        path = Path(self._outputs["registry"]["registration"].uri) / "registration.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _tell_about_tracking(self) -> None:
        if self._tracker.away:
            self._display.say(
                "tracking",
                "warning: MLflow could not be reached; the run's record is on disk. Send it with: "
                f"switchyard upload --workspace {shlex.quote(str(self._workspace.root))}",
            )


def _note(registration: Mapping[str, Any]) -> str:
    if registration.get("status") == "put off":
        return (
            "MLflow is away: the model is registered by switchyard upload, and replaces no champion that it was not compared with"
        )
    return str(registration.get("why", "")) if registration.get("status") == "challenger" else ""


def _import() -> None:
    import pipelines.definition
    import pipelines.runners.metadata_access  # noqa: F401


def stop_on_sigterm() -> None:
    """Makes SIGTERM end a run as Ctrl-C does. Only in the main thread."""
    import signal

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
