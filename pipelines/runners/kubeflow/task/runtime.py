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
from contextlib import contextmanager, nullcontext
from typing import Any

from switchyard.components import progress
from switchyard.components.process.account import ensure_account
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.runners.kubeflow.bindings import bound
from switchyard.pipelines.runners.kubeflow.carried_files import PLACE, unpack, unpacked
from switchyard.pipelines.runners.kubeflow.task import failure
from switchyard.pipelines.runners.kubeflow.task import tracking as task_tracking
from switchyard.pipelines.runners.kubeflow.task.cached_stages import producer_run_id
from switchyard.pipelines.runners.kubeflow.task.process_end import end_at_once
from switchyard.pipelines.runners.kubeflow.task.termination import until_terminated


def run_node(given: Mapping[str, Any], pipeline: str, *nodes: Mapping[str, Any], files: Mapping[str, str] | None = None) -> None:
    """Runs a node's executor, or several nodes' one after the other: what one of them writes is there for the next.

    Args:
        given: the arguments of the generated function: `locals()`. `workspace` is a folder that lives as long as the run.
        pipeline: its name.
        nodes: of each what the compiler knows: `id`, `component` (whose class declares its executor and types) or `executor`,
            `beam` (arguments), `types` (key -> class path), `dynamic`, `schemas`; `inputs`, `outputs`, `properties` and `views`,
            by key the names of their arguments, see `bindings`; `driver_output`, or `driver`: the name of its argument.
        files: files that travel with the pipeline, see `carried_files`.

    Raises:
        SystemExit: a node failed; the message is the last line of standard error. Those after it do not run.
    """
    joint = len(nodes) > 1
    _listen("" if joint else f"{nodes[0]['id']}: ")
    with _said() as failing:
        for node in nodes:
            with progress.said_by(node["id"]) if joint else nullcontext():
                _run_stage(given, {"pipeline": pipeline, **node}, files, failing, joint=joint)


@contextmanager
def _said() -> Iterator[failure.Stage]:
    ensure_account()
    progress.no_progress_bars()
    # Twice: the reason goes to MLflow at its end, and SIGTERM may arrive meanwhile.
    with failure.report_failure() as stage, until_terminated():
        yield stage
    end_at_once()


def _run_stage(
    given: Mapping[str, Any], node: Mapping[str, Any], files: Mapping[str, str] | None, failing: failure.Stage, *, joint: bool
) -> None:
    stage, workspace = str(node["id"]), given.get("workspace")
    failing.name = stage if joint else ""
    with task_tracking.mlflow_run_for_task(stage, producer_run_id(given.values()), joint=joint), until_terminated():
        started = time.monotonic()
        from switchyard.pipelines.runners.kubeflow.task import node as node_run

        _patch(beam="beam" in node or node.get("executor", {}).get("kind") == "BeamExecutableSpec")
        progress.say("running")
        inputs, outputs, properties = _inputs(given, node), *(_one_each(given, node, k) for k in ("outputs", "properties"))
        work = node_run.NodeRun(node, inputs, outputs, _resolved(properties, files), key=_key(inputs, properties))
        with tempfile.TemporaryDirectory() as temporary:
            state = RunContext.current().state or (f"{workspace}/switchyard" if workspace else None)
            work.execute(temporary, state, node.get("driver_output") or given.get(node.get("driver", "")) or "")
        work.show(_one_each(given, node, "views"))
        progress.say(f"done in {time.monotonic() - started:.1f} s")


def _inputs(given: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {key: [given[name] for name in names] for key, names in bound("inputs", node, given).items()}


def _one_each(given: Mapping[str, Any], node: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {key: given[name] for key, (name,) in bound(kind, node, given).items()}


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


def run_driver(given: Mapping[str, Any], pipeline: str, node: Mapping[str, Any], files: Mapping[str, str] | None = None) -> str:
    """Runs a node's driver; returns what it changed as JSON, for `run_node`. The same input gives the same text."""
    with failure.report_failure():
        ensure_account()
        progress.no_progress_bars()
        _listen(f"{node['id']}: ")
        node = {"pipeline": pipeline, **node}
        properties = _one_each(given, node, "properties")
        said = driver_output_of(node, inputs=_inputs(given, node), properties=properties, files=files)
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


def evaluate_condition(given: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    """Returns `true` or `false` for a predicate over artifacts."""
    with failure.report_failure():
        from switchyard.pipelines.runners.kubeflow.task import node as node_run

        holds = "true" if node_run.holds(node, _inputs(given, node)) else "false"
    end_at_once()
    return holds


def _resolved(properties: Mapping[str, Any], files: Mapping[str, str] | None) -> dict[str, Any]:
    given = {k: unpacked(v) if isinstance(v, str) else v for k, v in properties.items() if v is not None}
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
