"""Entry points of a task: runs TFX nodes on KFP's artifacts with TFX's portable operators, without ML Metadata.

The generated components call only these functions of Switchyard.
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
from switchyard.components.errors import UserError
from switchyard.components.process.account import ensure_account
from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.runners.kubeflow.bindings import bound
from switchyard.pipelines.runners.kubeflow.carried_files import PLACE, unpack, unpacked
from switchyard.pipelines.runners.kubeflow.task import failure, other_version
from switchyard.pipelines.runners.kubeflow.task import tracking as task_tracking
from switchyard.pipelines.runners.kubeflow.task.cached_stages import producer_run_id
from switchyard.pipelines.runners.kubeflow.task.process_end import end_at_once
from switchyard.pipelines.runners.kubeflow.task.termination import until_terminated


def run_node(given: Mapping[str, Any], pipeline: str, *nodes: Mapping[str, Any], files: Mapping[str, str] | None = None) -> None:
    """Runs the executors of one or more nodes in order; a node can read the outputs of the nodes before it.

    Args:
        given: the arguments of the generated function: `locals()`. `workspace` is a folder that lasts as long as the run.
        pipeline: name of the pipeline.
        nodes: the compiled nodes: `id`, `component` (path of the class that declares executor and types) or `executor`,
            `beam` (arguments), `types` (key -> class path), `dynamic`, `schemas`; `inputs`, `outputs`, `properties` and `views`
            (key -> names of arguments, see `bindings`); `driver_output`, or `driver`: the argument that holds it; `verify`: the
            driver, which must still give `driver_output`.
        files: files embedded in the pipeline, see `carried_files`.

    Raises:
        SystemExit: a node failed; the message is the last line of standard error. Later nodes do not run.
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
    # Also entered in `_run_stage`: SIGTERM may arrive while its end logs the reason to MLflow.
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
        _verify(node, inputs, properties, files)
        resolved = _resolved(properties, files)
        with other_version.explained(resolved), tempfile.TemporaryDirectory() as temporary:
            work = node_run.NodeRun(node, inputs, outputs, resolved, key=_key(inputs, properties))
            state = RunContext.current().state or (f"{workspace}/switchyard" if workspace else None)
            work.execute(temporary, state, node.get("driver_output") or given.get(node.get("driver", "")) or "")
        work.show(_one_each(given, node, "views"))
        progress.say(f"done in {time.monotonic() - started:.1f} s")


def _inputs(given: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {key: [given[name] for name in names] for key, names in bound("inputs", node, given).items()}


def _one_each(given: Mapping[str, Any], node: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {key: given[name] for key, (name,) in bound(kind, node, given).items()}


def _patch(*, beam: bool) -> None:
    """Patches the libraries that a stage uses; Beam, which takes seconds to import, only for stages that need it."""
    from switchyard.components.compat import tensorflow_globs

    tensorflow_globs.install()
    if beam or "apache_beam" in sys.modules:
        from switchyard.components.compat import beam_caches, beam_local_globs, tft_output_sources, tfx_reader
        from switchyard.components.data.tfrecords import ReadExamples

        beam_caches.install()
        beam_local_globs.install()
        tft_output_sources.install()
        tfx_reader.install(ReadExamples)


def run_driver(given: Mapping[str, Any], pipeline: str, node: Mapping[str, Any], files: Mapping[str, str] | None = None) -> str:
    """Runs a node's driver and returns its changes as JSON for `run_node`; equal inputs give equal text."""
    with failure.report_failure():
        ensure_account()
        progress.no_progress_bars()
        _listen(f"{node['id']}: ")
        node = {"pipeline": pipeline, **node}
        properties = _one_each(given, node, "properties")
        output = driver_output_of(node, inputs=_inputs(given, node), properties=properties, files=files)
    end_at_once()
    return output


def driver_output_of(
    node: Mapping[str, Any],
    *,
    inputs: Mapping[str, Sequence[Any]],
    properties: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
) -> str:
    """Runs a node's driver in this process; see `run_driver`."""
    from switchyard.pipelines.runners.kubeflow.task import node as node_run

    with tempfile.TemporaryDirectory() as temporary:
        changed = node_run.NodeRun(node, inputs, {}, _resolved(properties, files), key="").drive(temporary)
    # Paths of unpacked files differ between machines.
    text = json.dumps(changed, sort_keys=True)
    return text.replace(str(unpack(files)), PLACE) if files else text


def evaluate_condition(given: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    """Evaluates a predicate over artifacts; returns `true` or `false` as text."""
    with failure.report_failure():
        from switchyard.pipelines.runners.kubeflow.task import node as node_run

        holds = "true" if node_run.holds(node, _inputs(given, node)) else "false"
    end_at_once()
    return holds


def _verify(
    node: Mapping[str, Any], inputs: Mapping[str, Sequence[Any]], properties: Mapping[str, Any], files: Mapping[str, str] | None
) -> None:
    """Raises UserError if data has changed since its driver ran: KFP would cache the outputs as those of the earlier data."""
    if driver := node.get("verify"):
        now = driver_output_of({**node, "driver": driver}, inputs=inputs, properties=properties, files=files)
        if now != node["driver_output"]:
            raise UserError("data.path: the data has changed since the pipeline was submitted; submit it again")


def _resolved(properties: Mapping[str, Any], files: Mapping[str, str] | None) -> dict[str, Any]:
    given = {k: unpacked(v) if isinstance(v, str) else v for k, v in properties.items() if v is not None}
    if not files:
        return given
    folder = str(unpack(files))
    return {k: v.replace(PLACE, folder) if isinstance(v, str) else v for k, v in given.items()}


def _key(inputs: Mapping[str, Sequence[Any]], properties: Mapping[str, Any]) -> str:
    """Returns a key that is the same for every retry: it uses URIs and properties, not local paths."""
    parts = [f"{key}={[a.uri for a in artifacts]}" for key, artifacts in sorted(inputs.items())]
    parts += [f"{key}={value}" for key, value in sorted(properties.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _listen(before: str) -> None:
    if not progress.heard():
        progress.set_sink(lambda text: failure.write(f"{before}{text}\n"))
