"""LocalRunner: the pipeline's nodes on this machine, each in a process of its own, independent ones side by side.

TFX's own launcher does driver, cache, executor and publishing; here are order, processes, progress and tracking.
"""

from __future__ import annotations

import importlib
import itertools
import os
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from switchyard.components.errors import CancelledError, DataGateError, UserError
from switchyard.components.import_order import without_pytorch
from switchyard.components.training.trainers import TRAINERS
from switchyard.pipelines.config.beam import BeamConfig
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.preflight import check_inputs
from switchyard.pipelines.runners.champion_class import champions_class
from switchyard.pipelines.runners.contract import CompiledPipeline, Runner, RunResult
from switchyard.pipelines.runners.local import last_run
from switchyard.pipelines.runners.local.flink import JobServer
from switchyard.pipelines.runners.local.process import Job, StageProcesses
from switchyard.pipelines.runners.local.run import LocalRun
from switchyard.pipelines.terminal.output import quiet
from switchyard.pipelines.terminal.progress import Display, make_display
from switchyard.pipelines.workspace import Workspace

# Several runs of one process may start in the same second.
_numbers = itertools.count(1)


class LocalRunner(Runner):
    """Runs in `workspace`; a second run of the same thing finds every stage in the cache.

    Args:
        workspace: where it writes.
        console: for progress.
        source: the YAML.
        only: these stages, not all.
        even_if_unchanged: run also when nothing that goes in has changed since the last run, see `last_run`.
    """

    name = "local"
    # Modules that the stages' processes need besides.
    _also_preloaded: ClassVar[Sequence[str]] = ()
    # Whether it knows the last run again.
    _remembers: ClassVar[bool] = True

    def __init__(
        self,
        workspace: Workspace,
        console: Console,
        source: Path | None = None,
        only: Collection[str] | None = None,
        *,
        even_if_unchanged: bool = False,
    ) -> None:
        self._made = workspace.create()
        self._workspace = workspace
        self._source = source
        self._only = only
        self._even_if_unchanged = even_if_unchanged
        # Digest of what the run is given; None: the run is not remembered.
        self._settings: str | None = None
        self._logs = workspace.logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{next(_numbers)}"
        self._logs.mkdir(parents=True)
        self._display: Display = make_display(console)
        self._processes: StageProcesses | None = None
        self._job_server: JobServer | None = None
        self._trainer = ""

    def compile(self, config: PipelineConfig) -> CompiledPipeline:
        """See Runner. Also checks data, code and devices (in a child process), which takes some seconds."""
        try:
            return self._checked(config)
        except (UserError, DataGateError):
            # Nothing has run: what a refused command leaves would be in the way of the right one, or taken for a run's.
            self.cancel()
            self._workspace.forget(self._logs, self._made)
            raise

    def _checked(self, config: PipelineConfig) -> CompiledPipeline:
        # Before the frameworks are loaded: most mistakes are found within a second.
        with quiet(self._logs / "runner.log"):
            given = config
            config = check_inputs(given, self._workspace.code, champions_class(given, self._workspace))
            if config.positive_class != given.positive_class:
                self._display.say(
                    "check", f"warning: positive_class: {config.positive_class}, as of the champion; the key chooses another"
                )
            if self._remembers and self._only is None:
                self._settings = last_run.settings_digest(config, self._workspace)
                last = last_run.match(config, self._workspace, self._settings) if not self._even_if_unchanged else None
                if last:
                    return CompiledPipeline(config, last, dict.fromkeys(last.work, ()))
        self._start_engine(config)
        # A trainer of the user's own may be one with PyTorch, which then has to come first.
        trainers = [TRAINERS.get(f, "torch") for f in config.trainer.frameworks]
        self._processes = StageProcesses(self._logs / "preload.log", [*trainers, *self._also_preloaded])
        with quiet(self._logs / "runner.log"), self._display:
            self._processes.warm()
            self._display.status("check", "running")
            self._display.say("check", "importing the libraries")
            started = time.monotonic()
            try:
                with ThreadPoolExecutor(1) as pool:
                    # TFX's import takes as long as the child's: at the same time.
                    imports = pool.submit(_import)
                    job = Job(
                        "switchyard.pipelines.preflight:check_environment",
                        (config, self._workspace.code),
                        self._logs / "check.log",
                    )
                    found = self._processes.run(job, partial(self._display.say, "check"))
                    imports.result()
            except BaseException as error:
                given_up = isinstance(error, KeyboardInterrupt | CancelledError)
                self._display.status("check", "cancelled" if given_up else "failed", time.monotonic() - started)
                raise
            self._display.status("check", "ran", time.monotonic() - started)
        self._trainer = ", ".join(found["trainers"])
        with quiet(self._logs / "runner.log"):
            return self._compile(config)

    def submit(self, compiled: CompiledPipeline) -> RunResult:
        """See Runner."""
        with quiet(self._logs / "runner.log"), self._display:
            self._display.stages(compiled.stages)
            if isinstance(compiled.program, last_run.LastRun):
                return last_run.replay(
                    compiled.config, self._workspace, compiled.program, self._display, self._logs.name, self._source
                )
            if self._processes is None:
                raise RuntimeError("compile first")
            if self._settings:
                last_run.invalidate(self._workspace)
            beam = compiled.config.beam.arguments()
            if self._job_server:
                self._job_server.wait()
                beam += (f"--job_endpoint={self._job_server.endpoint}",)
            run = LocalRun(
                compiled, self._workspace, self._processes, self._display, self._logs, self._trainer, self._source, beam
            )
            result = run.run()
            if self._settings and not run.away:
                last_run.save(compiled.config, self._workspace, self._settings, self._trainer, result, run.work)
            return result

    def cancel(self) -> None:
        """Stops the children of a run that is being given up, or has ended."""
        if self._processes:
            self._processes.cancel()
        if self._job_server:
            self._job_server.stop()

    def _start_engine(self, config: PipelineConfig) -> None:
        if config.beam.needs_job_server:
            self._job_server = JobServer(config.beam, self._logs / "flink.log")

    def _compile(self, config: PipelineConfig) -> CompiledPipeline:
        from tfx.dsl.compiler.compiler import Compiler

        from switchyard.pipelines.definition import UNCACHED, create_pipeline

        pipeline = create_pipeline(
            config,
            pipeline_root=str(self._workspace.artifacts),
            code_store=self._workspace.code,
            metadata_path=str(self._workspace.metadata),
            beam_pipeline_args=BeamConfig().arguments(),
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


# All that a run imports in this process, for a moment in which it waits anyway.
_NEEDED = (
    "switchyard.pipelines.definition",
    "switchyard.pipelines.runners.local.metadata",
    "tfx.dsl.compiler.compiler",
    "tfx.orchestration.local.runner_utils",
    "tfx.orchestration.portable.launcher",
    "mlflow.store.tracking.sqlalchemy_store",
)


def _import() -> None:
    with without_pytorch():
        for module in _NEEDED:
            importlib.import_module(module)


def stop_on_sigterm() -> None:
    """Makes SIGTERM end a run as Ctrl-C does. Only in the main thread."""
    import signal

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
