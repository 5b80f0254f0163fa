"""TFX's executor operator for the local runner: called by the launcher to run a stage's executor."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any

from switchyard.components.process.folder_lock import locked_folder
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.runners.contract import PRODUCER_RUN_ID
from switchyard.pipelines.runners.local.process import Job, StageProcesses


class DoneByAnotherRunError(Exception):
    """Another run of the workspace did the same work in the meantime: the launcher looks it up in the cache again."""


class StageOperator:
    """A TFX executor operator that runs the executor in a child process.

    `beam` replaces the compiled Beam arguments. TFX's cache key uses the compiled ones, so cached outputs are valid for every
    engine. `locks` holds the stage's folder until its outputs are published.
    """

    def __init__(
        self,
        processes: StageProcesses,
        log: Path,
        neutral: Callable[[str], str],
        context: RunContext,
        say: Callable[[str], None],
        beam: Sequence[str],
        locks: ExitStack,
        executor_spec: Any,
        platform_config: Any = None,
    ) -> None:
        self._processes, self._log, self._context, self._say = processes, log, context, say
        self._spec, self._beam, self._neutral, self._locks = executor_spec, beam, neutral, locks

    def with_execution_watcher(self, address: str) -> StageOperator:
        """Returns the operator unchanged: no executor here changes its execution's metadata."""
        return self

    def run_executor(self, info: Any) -> Any:
        """Returns the executor's output; re-raises its errors.

        Raises:
            DoneByAnotherRunError: see there.
        """
        from tfx.proto.orchestration import execution_result_pb2

        # TFX's stateful folder is new in every run; this one depends only on inputs and settings.
        folder = Path(self._context.state) / f"{info.pipeline_node.node_info.id}-{_key(info, self._neutral)}"
        tell = cache(lambda: self._say("waits for another run of this workspace, which does the same work"))

        def wait() -> None:
            self._processes.check_cancelled()
            tell()

        if self._locks.enter_context(locked_folder(folder, wait)):
            with suppress(OSError):  # a run that was killed left its checkpoints
                folder.rmdir()
            raise DoneByAnotherRunError
        original, info.stateful_working_dir = info.stateful_working_dir, str(folder)
        try:
            payload = (type(self._spec).__name__, self._with_beam().SerializeToString(), info.to_proto().SerializeToString())
        finally:
            info.stateful_working_dir = original
        answer = self._processes.run(
            Job("switchyard.pipelines.runners.local.executor:run_executor", payload, self._log, self._context), self._say
        )
        output = execution_result_pb2.ExecutorOutput.FromString(answer)
        for artifacts in output.output_artifacts.values():
            for artifact in artifacts.artifacts:
                artifact.custom_properties[PRODUCER_RUN_ID].string_value = self._context.run_id
        shutil.rmtree(folder, ignore_errors=True)
        return output

    def _with_beam(self) -> Any:
        spec = type(self._spec)()
        spec.CopyFrom(self._spec)
        if hasattr(spec, "beam_pipeline_args_placeholders"):
            del spec.beam_pipeline_args_placeholders[:]
            for argument in self._beam:
                spec.beam_pipeline_args_placeholders.add().value.string_value = argument
        return spec


def _key(info: Any, neutral: Callable[[str], str]) -> str:
    """Returns a key that does not depend on the workspace's location: a killed training resumes after its workspace moved."""
    from switchyard.components.artifacts import identity

    digest = hashlib.sha256()
    for key, artifacts in sorted(info.input_dict.items()):
        digest.update(neutral(f"{key}={[identity(a) for a in artifacts]}").encode())
    for key, value in sorted(info.exec_properties.items()):
        digest.update(neutral(f"{key}={value}").encode())
    return digest.hexdigest()[:16]
