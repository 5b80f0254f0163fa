"""LocalRunner: runs each pipeline node in a separate process on this machine, independent nodes in parallel.

TFX's launcher runs driver, cache lookup, executor and publishing; this package adds scheduling, processes, progress and tracking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from switchyard.pipelines.config.beam import BeamConfig
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.runners.contract import CompiledPipeline, RunResult
from switchyard.pipelines.runners.local import last_run
from switchyard.pipelines.runners.local.flink import JobServer
from switchyard.pipelines.runners.local.process import StageProcesses
from switchyard.pipelines.runners.local.run import LocalRun
from switchyard.pipelines.runners.this_machine import MachineRunner
from switchyard.pipelines.terminal.output import quiet

if TYPE_CHECKING:
    from tfx.proto.orchestration import pipeline_pb2


class LocalRunner(MachineRunner["pipeline_pb2.Pipeline"]):
    """A runner whose stages are processes forked from one that has imported TFX; an unchanged pipeline is not run again."""

    name = "local"
    # Digest of the run's settings; None when the run is not recorded as the last run.
    _settings: str | None = None
    _job_server: JobServer | None = None

    def run(self, config: PipelineConfig) -> RunResult:
        """See Runner."""
        config = self._check_inputs(config)
        if self._only is None:
            with quiet(self._logs / "runner.log"):
                self._settings = last_run.settings_digest(config, self._workspace)
                last = last_run.match(config, self._workspace, self._settings) if not self._even_if_unchanged else None
            if last:
                return self._replay(config, last)
        self._check_environment(config)
        return self.submit(self.compile(config))

    def _replay(self, config: PipelineConfig, last: last_run.LastRun) -> RunResult:
        with quiet(self._logs / "runner.log"), self._display:
            self._display.stages(last.work)
            return last_run.replay(config, self._workspace, last, self._display, self._logs.name, self._source)

    def _start_engine(self, config: PipelineConfig) -> None:
        if config.beam.needs_job_server:
            self._job_server = self._started.enter_context(JobServer(config.beam, self._logs / "flink.log"))

    def _compile(self, config: PipelineConfig) -> CompiledPipeline[pipeline_pb2.Pipeline]:
        from tfx.dsl.compiler.compiler import Compiler

        from switchyard.pipelines.definition import create_pipeline, uncached

        pipeline = create_pipeline(
            config,
            pipeline_root=str(self._workspace.artifacts),
            code_store=self._workspace.code,
            metadata_path=str(self._workspace.metadata),
            # For cache keys only, see StageOperator: neither the engine nor its limit changes a result.
            beam_pipeline_args=BeamConfig(in_memory_limit=0).arguments(),
            only=self._only,
        )
        ir = Compiler().compile(pipeline)
        stages = {}
        for node in ir.nodes:
            stage = node.pipeline_node.node_info.id
            stages[stage] = tuple(node.pipeline_node.upstream_nodes)
            if stage in uncached(stages):
                node.pipeline_node.execution_options.caching_options.enable_cache = False
        return CompiledPipeline(config, ir, stages)

    def _submit(self, compiled: CompiledPipeline[pipeline_pb2.Pipeline], processes: StageProcesses) -> RunResult:
        if self._settings:
            last_run.invalidate(self._workspace)
        beam = compiled.config.beam.arguments()
        if self._job_server:
            self._job_server.wait()
            beam += (f"--job_endpoint={self._job_server.endpoint}",)
        run = LocalRun(compiled, self._workspace, processes, self._display, self._logs, self._trainer, self._source, beam)
        result = run.run()
        if self._settings and not run.offline:
            last_run.save(compiled.config, self._workspace, self._settings, self._trainer, result, run.work)
        return result
