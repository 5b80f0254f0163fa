"""What a task does: one TFX node, on the artifacts that KFP hands it, through TFX's own portable operators. No ML Metadata.

The generated components call these functions, and nothing else of Switchyard.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from switchyard.components import progress
from switchyard.components.process.account import ensure_account
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.runners.kubeflow.carried_files import PLACE, unpack
from switchyard.pipelines.runners.kubeflow.task import failure
from switchyard.pipelines.runners.kubeflow.task import tracking as task_tracking
from switchyard.pipelines.runners.kubeflow.task.cached_stages import producer_run_id
from switchyard.pipelines.runners.kubeflow.task.process_end import end_at_once
from switchyard.pipelines.runners.kubeflow.task.termination import until_terminated


def run_node(
    node: Mapping[str, Any],
    *,
    inputs: Mapping[str, Sequence[Any]],
    outputs: Mapping[str, Any],
    properties: Mapping[str, Any],
    views: Mapping[str, Any] | None = None,
    driver_output: str = "",
    workspace: str = "",
    files: Mapping[str, str] | None = None,
) -> None:
    """Runs a node's executor.

    Args:
        node: what the compiler knows: `id`, `pipeline`, `executor`, `types` (key -> class path) and `component` (whose class
            declares the other types), `dynamic`, `schemas`.
        inputs: TFX key -> KFP artifacts.
        outputs: TFX key -> KFP artifact; its metadata is filled in.
        properties: exec properties.
        views: outputs for KFP's pages.
        driver_output: what `run_driver` returned.
        workspace: folder that lives as long as the run; empty: there is none.
        files: files that travel with the pipeline, see `carried_files`.

    Raises:
        SystemExit: the node failed; the message is the last line of standard error.
    """
    given: dict[str, Any] = {"node": node, "inputs": inputs, "outputs": outputs, "properties": properties}
    given |= {"views": views, "driver_output": driver_output}
    _listen(f"{node['id']}: ")
    with _said() as failing:
        _run_stage(given, workspace, files, failing, joint=False)


def run_nodes(nodes: Sequence[Mapping[str, Any]], *, workspace: str = "", files: Mapping[str, str] | None = None) -> None:
    """Runs several nodes one after the other: what one of them writes is there for the next.

    Args:
        nodes: of each what `run_node` takes, by name.
        workspace: see `run_node`.
        files: of all nodes.

    Raises:
        SystemExit: see `run_node`. Those after the node that failed do not run.
    """
    _listen("")
    with _said() as failing:
        for given in nodes:
            with progress.said_by(given["node"]["id"]):
                _run_stage(given, workspace, files, failing, joint=True)


@contextmanager
def _said() -> Iterator[failure.Stage]:
    ensure_account()
    progress.no_progress_bars()
    # Twice: the reason goes to MLflow at its end, and SIGTERM may arrive meanwhile.
    with failure.report_failure() as stage, until_terminated():
        yield stage
    end_at_once()


def _run_stage(
    given: Mapping[str, Any], workspace: str, files: Mapping[str, str] | None, failing: failure.Stage, *, joint: bool
) -> None:
    node, inputs, properties = given["node"], given["inputs"], given["properties"]
    stage = str(node["id"])
    failing.name = stage if joint else ""
    with task_tracking.mlflow_run_for_task(stage, producer_run_id(inputs), joint=joint), until_terminated():
        started = time.monotonic()
        from switchyard.pipelines.runners.kubeflow.task import node as node_run

        _patch(beam=node["executor"]["kind"] == "BeamExecutableSpec")
        progress.say("running")
        work = node_run.NodeRun(node, inputs, given["outputs"], _resolved(properties, files), key=_key(inputs, properties))
        with tempfile.TemporaryDirectory() as temporary:
            state = RunContext.current().state or (f"{workspace}/switchyard" if workspace else None)
            work.execute(temporary, state, given.get("driver_output") or "")
        work.show(given.get("views") or {})
        progress.say(f"done in {time.monotonic() - started:.1f} s")


def _patch(*, beam: bool) -> None:
    """Mends the libraries that a stage uses; Beam, which takes seconds to import, for its stages alone."""
    from switchyard.components.compat import tensorflow_globs

    tensorflow_globs.install()
    if beam or "apache_beam" in sys.modules:
        from switchyard.components.compat import beam_caches, beam_local_globs, tfx_reader
        from switchyard.components.data.tfrecords import ReadExamples

        beam_caches.install()
        beam_local_globs.install()
        tfx_reader.install(ReadExamples)


def run_driver(
    node: Mapping[str, Any],
    *,
    inputs: Mapping[str, Sequence[Any]],
    properties: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
) -> str:
    """Runs a node's driver; returns what it changed as JSON, for `run_node`. The same input gives the same text."""
    with failure.report_failure():
        ensure_account()
        progress.no_progress_bars()
        _listen(f"{node['id']}: ")
        said = driver_output_of(node, inputs=inputs, properties=properties, files=files)
    end_at_once()
    return said


def driver_output_of(
    node: Mapping[str, Any],
    *,
    inputs: Mapping[str, Sequence[Any]],
    properties: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
) -> str:
    """Runs a node's driver, here and now; see `run_driver`."""
    from switchyard.pipelines.runners.kubeflow.task import node as node_run

    with tempfile.TemporaryDirectory() as temporary:
        changed = node_run.NodeRun(node, inputs, {}, _resolved(properties, files), key="").drive(temporary)
    # Where the files lie on this machine is of no use on another one.
    text = json.dumps(changed, sort_keys=True)
    return text.replace(str(unpack(files)), PLACE) if files else text


def evaluate_condition(node: Mapping[str, Any], *, inputs: Mapping[str, Sequence[Any]]) -> str:
    """Returns `true` or `false` for a predicate over artifacts."""
    with failure.report_failure():
        from switchyard.pipelines.runners.kubeflow.task import node as node_run

        holds = "true" if node_run.holds(node, inputs) else "false"
    end_at_once()
    return holds


def _resolved(properties: Mapping[str, Any], files: Mapping[str, str] | None) -> dict[str, Any]:
    given = {k: v for k, v in properties.items() if v is not None}
    if not files:
        return given
    folder = str(unpack(files))
    return {k: v.replace(PLACE, folder) if isinstance(v, str) else v for k, v in given.items()}


def _key(inputs: Mapping[str, Sequence[Any]], properties: Mapping[str, Any]) -> str:
    """The same for a retry of the same work, wherever its files lie then."""
    parts = [f"{key}={[a.uri for a in artifacts]}" for key, artifacts in sorted(inputs.items())]
    parts += [f"{key}={value}" for key, value in sorted(properties.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _listen(before: str) -> None:
    if not progress.heard():
        progress.set_sink(lambda text: failure.write(f"{before}{text}\n"))
