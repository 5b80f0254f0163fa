"""Shared base of the runners on this machine: checks before a run, worker processes, tracking and result."""

from __future__ import annotations

import abc
import importlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic

from rich.console import Console

from switchyard.components.errors import CancelledError, DataGateError, SwitchyardError, UserError
from switchyard.components.import_order import without_other_frameworks
from switchyard.components.training.trainers import TRAINERS, check_installed
from switchyard.components.training.workers.training_process import STAGES_OWN, TrainingServers
from switchyard.components.user_code import huggingface
from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.config.stage_settings import code_texts, trainer_settings
from switchyard.pipelines.preflight import check_inputs, check_signing
from switchyard.pipelines.runners.champion_class import champions_class
from switchyard.pipelines.runners.contract import CompiledPipeline, Program, Runner, RunResult, StageResult
from switchyard.pipelines.runners.local.process import Job, StageProcesses
from switchyard.pipelines.runners.outcome import run_result, track_result
from switchyard.pipelines.runners.tracking.runs import RunTracker
from switchyard.pipelines.terminal.output import quiet
from switchyard.pipelines.terminal.progress import Display, make_display
from switchyard.pipelines.workspace import Workspace

# Several runs of one process may start in the same second.
_numbers = itertools.count(1)
# Modules that a run imports in this process; imported while it waits for the check process.
NEEDED = (
    "switchyard.pipelines.definition",
    "switchyard.pipelines.runners.local.metadata",
    "tfx.dsl.compiler.compiler",
    "tfx.orchestration.local.runner_utils",
    "tfx.orchestration.portable.launcher",
    "mlflow.store.tracking.sqlalchemy_store",
)


class MachineRunner(Runner[Program]):
    """A runner on this machine; a repeated run takes every unchanged stage from the workspace's cache.

    Args:
        workspace: folder for all outputs.
        console: console for progress.
        source: path of the YAML.
        only: stages to run; default: all.
        even_if_unchanged: run even if no input has changed since the last run, see `last_run`.
    """

    # Additional modules that the stages' processes preload.
    _also_preloaded: ClassVar[Sequence[str]] = ()

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
        self._logs = workspace.logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{next(_numbers)}"
        self._logs.mkdir(parents=True)
        self._display: Display = make_display(console)
        self._started = ExitStack()
        self._processes: StageProcesses | None = None
        self._trainer = ""  # the trainers' names

    def check(self, config: PipelineConfig) -> PipelineConfig:
        """See Runner. The checks run in the processes that later run the stages."""
        config = self._check_inputs(config)
        self._check_environment(config)
        return config

    def compile(self, config: PipelineConfig) -> CompiledPipeline[Program]:
        """See Runner."""
        with self._nothing_left_when_refused(), quiet(self._logs / "runner.log"):
            return self._compile(config)

    def submit(self, compiled: CompiledPipeline[Program]) -> RunResult:
        """See Runner."""
        processes = self._check_environment(compiled.config)
        with quiet(self._logs / "runner.log"), self._display:
            self._display.stages(compiled.stages)
            return self._submit(compiled, processes)

    def close(self) -> None:
        """See Runner."""
        self._started.close()
        self._processes = None

    @abc.abstractmethod
    def _compile(self, config: PipelineConfig) -> CompiledPipeline[Program]: ...

    @abc.abstractmethod
    def _submit(self, compiled: CompiledPipeline[Program], processes: StageProcesses) -> RunResult: ...

    def _start_engine(self, config: PipelineConfig) -> None:
        """Starts the external engine, if the stages need one; it starts up while the checks run."""

    @contextmanager
    def _nothing_left_when_refused(self) -> Iterator[None]:
        try:
            yield
        except (UserError, DataGateError):
            # No stage has run: leftover files would block the corrected command or look like a run's.
            self.close()
            self._workspace.forget(self._logs, self._made)
            raise

    def _check_inputs(self, config: PipelineConfig) -> PipelineConfig:
        """Checks config and data before the frameworks are imported, so that most errors appear within a second."""
        with self._nothing_left_when_refused(), quiet(self._logs / "runner.log"):
            self._check_extras(config)
            check_signing(config, self._workspace.root)
            checked = check_inputs(config, self._workspace.code, champions_class(config, self._workspace))
            if checked.positive_class != config.positive_class:
                self._display.say(
                    "check",
                    f"warning: positive_class: {checked.positive_class}, taken from the champion; set positive_class to "
                    "choose another",
                )
            return checked

    def _check_extras(self, config: PipelineConfig) -> None:
        """Raises UserError if an extra that the run needs is not installed; what is compiled for a cluster needs its image's."""
        for framework in config.trainer.frameworks:
            check_installed(framework)
        if config.tokenizer and config.tokenizer.huggingface:
            huggingface.check_installed()

    def _check_environment(self, config: PipelineConfig) -> StageProcesses:
        """Returns the stage processes after the first one has checked the user's code and the devices."""
        if self._processes is not None:
            return self._processes
        with self._nothing_left_when_refused():
            self._start_engine(config)
            frameworks = [trainer_settings(config, self._workspace.code, f).framework for f in config.trainer.frameworks]
            servers = self._started.enter_context(TrainingServers(frameworks, self._logs))
            imported = [TRAINERS[f] for f in frameworks if f == STAGES_OWN]
            preloaded = [*imported, *self._also_preloaded]
            processes = StageProcesses(self._logs / "preload.log", preloaded, servers.environment, servers.to_fork)
            self._started.enter_context(processes)
            with quiet(self._logs / "runner.log"), self._display:
                processes.warm()
                self._display.status("check", "running")
                self._display.say("check", "importing the libraries")
                started = time.monotonic()
                try:
                    with ThreadPoolExecutor(1) as pool:
                        # Importing TFX takes as long as the child's imports, so both run in parallel.
                        imports = pool.submit(_import)
                        payload = (config, self._workspace.code)
                        job = Job("switchyard.pipelines.preflight:check_environment", payload, self._logs / "check.log")
                        trainers = processes.run(job, partial(self._display.say, "check"))
                        imports.result()
                except BaseException as error:
                    given_up = isinstance(error, KeyboardInterrupt | CancelledError)
                    self._display.status("check", "cancelled" if given_up else "failed", time.monotonic() - started)
                    raise
                self._display.status("check", "ran", time.monotonic() - started)
        self._processes, self._trainer = processes, ", ".join(trainers)
        return processes


class MachineRun(abc.ABC, Generic[Program]):
    """One run on this machine: its stages, tracking and result."""

    def __init__(
        self,
        compiled: CompiledPipeline[Program],
        workspace: Workspace,
        display: Display,
        logs: Path,
        trainer: str,
        source: Path | None,
    ) -> None:
        self._compiled, self._workspace, self._display, self._logs = compiled, workspace, display, logs
        self._trainer = trainer
        self._tracker = RunTracker(compiled.config, workspace, logs.name, trainer, source)
        self._tracker.log_texts(code_texts(compiled.config))
        self._results: dict[str, StageResult] = {}
        # Stage -> output key -> URI.
        self._outputs: dict[str, dict[str, str]] = {}
        # Stage -> error of its last attempt; the first entry is the run's error.
        self._errors: dict[str, SwitchyardError] = {}

    def run(self) -> RunResult:
        """Runs every stage that is not cached; a stage's failure is returned in the result."""
        cancelled = False
        try:
            self._run_stages()
        except KeyboardInterrupt:
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
            self._outputs,
            list(self._errors.values()),
            cancelled=cancelled,
        )
        track_result(self._tracker, result, self._display, self._workspace)
        return result

    @abc.abstractmethod
    def _run_stages(self) -> None: ...


def _import() -> None:
    with without_other_frameworks():
        for module in NEEDED:
            importlib.import_module(module)


def stop_on_sigterm() -> None:
    """Makes SIGTERM cancel a run like Ctrl-C; a no-op outside the main thread."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
