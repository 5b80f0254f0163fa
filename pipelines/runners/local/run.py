"""One local run: its stages in their order, its tracking, its outcome. TFX's launcher runs each node."""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

from switchyard.components.errors import CancelledError, StageError, SwitchyardError
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.runners.contract import PRODUCER_RUN_ID, CompiledPipeline, RunResult, StageResult, StageStatus
from switchyard.pipelines.runners.local.operator import StageOperator
from switchyard.pipelines.runners.local.process import StageProcesses
from switchyard.pipelines.runners.outcome import prefix_stage, run_result, track_result
from switchyard.pipelines.terminal.progress import Display
from switchyard.pipelines.workspace import Workspace

_log = logging.getLogger(__name__)


class LocalRun:
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
        beam: Sequence[str],
    ) -> None:
        from tfx.orchestration.local import runner_utils
        from tfx.orchestration.portable import runtime_parameter_utils

        from switchyard.components.compat import tfx_cache_keys
        from switchyard.pipelines.runners.local.metadata import LockedMetadata
        from switchyard.pipelines.runners.tracking.runs import RunTracker

        self._compiled, self._processes, self._display, self._logs = compiled, processes, display, logs
        self._workspace, self._trainer, self._beam = workspace, trainer, beam
        runtime_parameter_utils.substitute_runtime_parameter(compiled.program, {"pipeline-run-id": logs.name})
        self._deployment = runner_utils.extract_local_deployment_config(compiled.program)
        tfx_cache_keys.install()
        self._metadata = LockedMetadata(workspace.metadata, workspace.metadata_lock, self._neutral)
        self._tracker = RunTracker(compiled.config, workspace, logs.name, trainer, source)
        self._results: dict[str, StageResult] = {}
        self._outputs: dict[str, dict[str, Any]] = {}
        self._errors: list[SwitchyardError] = []
        # Stage -> the MLflow run that did its work: its own, or that of an earlier one.
        self.work: dict[str, str | None] = {}

    @property
    def away(self) -> bool:
        """MLflow does not have all of it yet."""
        return self._tracker.away

    def _neutral(self, text: str) -> str:
        """For cache keys: the data's contents and names are in them by their fingerprint, their folder counts for nothing."""
        data = self._compiled.config.data
        for path in [*data.path, *itertools.chain(*(data.split_paths or {}).values())]:
            name = f"<data>/{os.path.basename(path)}"
            for written in (path, json.dumps(path)[1:-1]):
                text = text.replace(f'"{written}"', f'"{name}"')
        return self._workspace.neutral(text)

    def run(self) -> RunResult:
        """Runs every stage that is not cached; a stage's failure is in the result."""
        cancelled = False
        try:
            self._run_stages()
        except KeyboardInterrupt:
            self._processes.cancel()
            cancelled = True
        except BaseException as error:
            self._tracker.ended("FAILED", {"switchyard.status": "failed", "switchyard.why": f"{type(error).__name__}: {error}"})
            raise
        result = run_result(
            self._compiled.config.name,
            self._trainer,
            self._tracker,
            self._compiled.stages,
            self._results,
            {s: {k: a.uri for k, a in by_key.items()} for s, by_key in self._outputs.items()},
            self._errors,
            cancelled=cancelled,
        )
        track_result(self._tracker, result, self._display, self._workspace)
        return result

    def _run_stages(self) -> None:
        waiting = dict(self._compiled.stages)
        nodes = {n.pipeline_node.node_info.id: n.pipeline_node for n in self._compiled.program.nodes}
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
                    stage = running.pop(future)
                    error = future.exception()
                    if isinstance(error, Exception):
                        self._errors.append(error if isinstance(error, SwitchyardError) else prefix_stage(stage, error))
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
        return stage in self._results and self._results[stage].status in ("ran", "cached")

    def _run_stage(self, node: Any) -> None:
        stage = node.node_info.id
        started = time.monotonic()
        context = self._tracker.stage_started(stage)
        self._display.status(stage, "running")
        try:
            status, self._outputs[stage] = self._launch(node, context)
        except Exception as error:
            status = "cancelled" if isinstance(error, CancelledError) else "failed"
            self._finish(stage, status, started, error=str(error))
            if not isinstance(error, SwitchyardError):
                _log.exception("%s failed", stage)
            raise prefix_stage(stage, error) from error
        self._finish(stage, status, started)

    def _launch(self, node: Any, context: RunContext) -> tuple[StageStatus, dict[str, Any]]:
        from tfx.orchestration.local import runner_utils
        from tfx.orchestration.portable import launcher
        from tfx.proto.orchestration import executable_spec_pb2

        from switchyard.pipelines.runners.local.metadata import CACHED, COMPLETE

        stage = node.node_info.id
        operator = partial(
            StageOperator,
            self._processes,
            self._logs / f"{stage}.log",
            self._neutral,
            context,
            partial(self._display.say, stage),
            self._beam,
        )
        operators = {
            executable_spec_pb2.PythonClassExecutableSpec: operator,
            executable_spec_pb2.BeamExecutableSpec: operator,
        }
        info = launcher.Launcher(
            pipeline_node=node,
            mlmd_connection=self._metadata,
            pipeline_info=self._compiled.program.pipeline_info,
            pipeline_runtime_spec=self._compiled.program.runtime_spec,
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
        seconds = time.monotonic() - started
        self._results[stage] = StageResult(status, round(seconds, 2))
        self._display.status(stage, status, seconds)
        producer_run_id = None
        if status == "cached":
            artifact = next(iter(self._outputs[stage].values()))
            producer_run_id = artifact.custom_properties[PRODUCER_RUN_ID].string_value or None
        self.work[stage] = producer_run_id or self._tracker.stage_run_id(stage)
        self._tracker.log_file(self._logs / f"{stage}.log", "logs")
        self._tracker.stage_ended(stage, status, seconds, producer_run_id=producer_run_id, error=error)
