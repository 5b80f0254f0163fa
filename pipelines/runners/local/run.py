"""One local run: schedules the stages, tracks them and collects their results. TFX's launcher runs each node."""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchyard.components.errors import CancelledError, StageError, SwitchyardError
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.runners.contract import PRODUCER_RUN_ID, CompiledPipeline, StageResult, StageStatus
from switchyard.pipelines.runners.local.operator import DoneByAnotherRunError, StageOperator
from switchyard.pipelines.runners.local.process import StageProcesses
from switchyard.pipelines.runners.outcome import prefix_stage
from switchyard.pipelines.runners.this_machine import MachineRun
from switchyard.pipelines.terminal.progress import Display
from switchyard.pipelines.workspace import Workspace

if TYPE_CHECKING:
    from tfx.proto.orchestration import pipeline_pb2

_log = logging.getLogger(__name__)


class LocalRun(MachineRun["pipeline_pb2.Pipeline"]):
    """One local run; TFX's launcher runs the stages, independent ones in parallel."""

    def __init__(
        self,
        compiled: CompiledPipeline[pipeline_pb2.Pipeline],
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

        from switchyard.components.artifacts import CONTENT
        from switchyard.components.compat import tfx_cache_keys
        from switchyard.pipelines.runners.local.metadata import LockedMetadata

        super().__init__(compiled, workspace, display, logs, trainer, source)
        self._processes, self._beam = processes, beam
        runtime_parameter_utils.substitute_runtime_parameter(compiled.program, {"pipeline-run-id": logs.name})
        self._deployment = runner_utils.extract_local_deployment_config(compiled.program)
        tfx_cache_keys.install(CONTENT)
        self._metadata = LockedMetadata(workspace.metadata, workspace.metadata_lock, self._neutral)
        self._metadata.skip_ids_of(workspace.artifacts)
        # Stage -> id of the MLflow run that produced its outputs: this run's, or an earlier one's.
        self.work: dict[str, str | None] = {}

    @property
    def offline(self) -> bool:
        """Whether records still wait to be sent to MLflow."""
        return self._tracker.offline

    def _neutral(self, text: str) -> str:
        """Returns a text for cache keys without folders: the fingerprint already covers the data's names and contents."""
        data = self._compiled.config.data
        for path in [*data.path, *itertools.chain(*(data.split_paths or {}).values())]:
            name = f"<data>/{os.path.basename(path)}"
            for written in (path, json.dumps(path)[1:-1]):
                text = text.replace(f'"{written}"', f'"{name}"')
        return self._workspace.neutral(text)

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
                # A timeout, so that Ctrl-C interrupts the wait.
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    stage = running.pop(future)
                    error = future.exception()
                    if isinstance(error, Exception):
                        self._errors[stage] = error if isinstance(error, SwitchyardError) else prefix_stage(stage, error)
                    elif error:
                        raise error
        except BaseException:
            self._processes.close()
            raise
        finally:
            # Stages running beside a failed one finish, so that the next run takes them from the cache.
            pool.shutdown(wait=True)

    def _succeeded(self, stage: str) -> bool:
        # A failed stage sets its result shortly before its error is recorded here.
        return stage in self._results and self._results[stage].status in ("ran", "cached")

    def _run_stage(self, node: Any) -> None:
        stage = node.node_info.id
        started = time.monotonic()
        context = self._tracker.stage_started(stage)
        self._display.status(stage, "running")
        try:
            status, artifacts = self._launch_once(node, context)
        except Exception as error:
            status = "cancelled" if isinstance(error, CancelledError) else "failed"
            self._finish(stage, status, started, None, str(error))
            if not isinstance(error, SwitchyardError):
                _log.exception("%s failed", stage)
            raise prefix_stage(stage, error) from error
        self._outputs[stage] = {key: artifact.uri for key, artifact in artifacts.items()}
        made_in = next(iter(artifacts.values())).custom_properties[PRODUCER_RUN_ID].string_value if status == "cached" else None
        self._finish(stage, status, started, made_in or None)

    def _launch_once(self, node: Any, context: RunContext) -> tuple[StageStatus, dict[str, Any]]:
        """Launches a stage; of several runs with the same work, one does it and the others take it from the cache."""
        while True:
            with ExitStack() as locks:
                try:
                    return self._launch(node, context, locks)
                except DoneByAnotherRunError:
                    continue

    def _launch(self, node: Any, context: RunContext, locks: ExitStack) -> tuple[StageStatus, dict[str, Any]]:
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
            locks,
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
            raise StageError("TFX's launcher skipped it because an input is missing")
        state, outputs = self._metadata.outcome(info.execution_id)
        if state not in (CACHED, COMPLETE):
            raise StageError(f"TFX's launcher left it in state {state}. Log: {self._logs / 'runner.log'}")
        return ("cached" if state == CACHED else "ran"), outputs

    def _finish(
        self, stage: str, status: StageStatus, started: float, producer_run_id: str | None, error: str | None = None
    ) -> None:
        seconds = time.monotonic() - started
        self._results[stage] = StageResult(status, round(seconds, 2))
        self._display.status(stage, status, seconds)
        self.work[stage] = producer_run_id or self._tracker.stage_run_id(stage)
        self._tracker.log_file(self._logs / f"{stage}.log", "logs")
        self._tracker.stage_ended(stage, status, seconds, producer_run_id=producer_run_id, error=error)
