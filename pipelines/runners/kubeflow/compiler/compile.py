"""Compiles any TFX pipeline for Kubeflow Pipelines v2: to readable Python source, then to IR YAML with KFP's compiler."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from switchyard.components.errors import UserError, did_you_mean
from switchyard.pipelines.config.kubeflow import StageResources
from switchyard.pipelines.runners.kubeflow.carried_files import LIMIT, Carried, carry, unpack
from switchyard.pipelines.runners.kubeflow.compiler.check import check
from switchyard.pipelines.runners.kubeflow.compiler.joining import join, members
from switchyard.pipelines.runners.kubeflow.compiler.plan import Plan, Task, task_name
from switchyard.pipelines.runners.kubeflow.compiler.resources import PipelineResources
from switchyard.pipelines.runners.kubeflow.compiler.source import to_source
from switchyard.pipelines.runners.kubeflow.compiler.user_modules import packaged_user_modules
from switchyard.pipelines.runners.kubeflow.contract import NODE
from switchyard.pipelines.runners.kubeflow.extra import require_kfp
from switchyard.pipelines.runners.kubeflow.uploaded_files import STORED
from switchyard.pipelines.terminal.output import quiet

_MAIN = "kfp.dsl.executor_main"
# Equivalent to KFP's script in a third of its bytes, which a cluster stores six times for each task.
_SCRIPT = f'f=$(mktemp -d)/c.py;printf %s "$0">"$f";_KFP_RUNTIME=true python3 -m {_MAIN} --component_module_path "$f" "$@"'
_FUNCTION = "task"
_IMPORTS = "from kfp.dsl import *\n"


@dataclass(frozen=True)
class CompiledForKubeflow:
    """A compiled pipeline.

    Attributes:
        source: the generated Python module.
        spec: KFP's pipeline spec.
        platform: its Kubernetes part; None when there is none.
        tasks: name of a KFP task that runs a node -> TFX node; for a joint task, its nodes separated by commas.
        waits: TFX node -> its upstream nodes, in topological order.
        outputs: name of a joint KFP task -> its outputs -> node and the output's name in that node.
    """

    source: str
    spec: dict[str, Any]
    platform: dict[str, Any] | None
    tasks: Mapping[str, str]
    waits: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, Mapping[str, tuple[str, str]]] = field(default_factory=dict)

    def to_yaml(self) -> str:
        """Returns the YAML for KFP's API, UI and SDK: one document, or two with a Kubernetes part."""
        documents = [self.spec] if self.platform is None else [self.spec, self.platform]
        return yaml.safe_dump_all(documents, sort_keys=True, width=2**31)


def compile_tfx_pipeline(
    pipeline: Any,
    *,
    image: str,
    stages: Mapping[str, StageResources] | None = None,
    resources: PipelineResources | None = None,
    environment: Mapping[str, str] | None = None,
    local_files: Mapping[Path, Sequence[Path]] | None = None,
    readers: Mapping[Path, Collection[str]] | None = None,
    stored: Mapping[Path, str] | None = None,
    driven: Collection[str] = (),
    verified: Collection[str] = (),
    views: bool = True,
    joined: bool = False,
    alone: Collection[str] = (),
    costly: Collection[str] = (),
) -> CompiledForKubeflow:
    """Compiles a TFX pipeline, Switchyard's or any other; starts nothing and needs no cluster.

    Args:
        pipeline: a `tfx.dsl.Pipeline`.
        image: container image of every node, with Switchyard and the modules of your components.
        stages: node id -> resources.
        resources: resources shared by all nodes.
        environment: environment variables of every node; never secrets (see `StageResources.secrets`).
        local_files: folder -> files under it to embed in the pipeline; paths of the folder in exec properties are replaced in
            the task. User modules that TFX packages (`module_file=`) are always embedded.
        readers: folder -> nodes that get its files; default: all nodes that name the folder.
        stored: uploaded file -> its reference, see `uploaded_files`.
        driven: nodes whose drivers run at compile time instead of in separate tasks.
        verified: those of `driven` that read data outside the pipeline: their tasks fail if the data has changed since.
        views: also write outputs for KFP's pages.
        joined: join compatible nodes into one task, see `joining`; otherwise every node is a task.
        alone: nodes that stay separate tasks.
        costly: with `joined`: nodes that do not run again because of the nodes they share a task with.

    Raises:
        UserError: a node cannot be compiled (the message names it and the reason), `stages` names an unknown node, or the extra
            `kubeflow` is not installed.
    """
    require_kfp()
    from switchyard.pipelines.runners.kubeflow.compiler.from_tfx import to_plan

    with packaged_user_modules(pipeline) as wheels:
        carried = carry({**wheels, **(local_files or {})}, readers or {}, stored)
        plan = to_plan(pipeline, carried, views=views)
    here = {t.id: _driven(t, plan.name, carried, t.id in verified) for t in plan.tasks if t.driver and t.id in driven}
    plan = replace(plan, tasks=[here.get(t.id, t) for t in plan.tasks])
    nodes = [t.id for t in plan.tasks]
    for name in stages or {}:
        if name not in nodes:
            raise UserError(f"kubeflow.stages: unknown stage {name!r}.{did_you_mean(name, nodes)} Stages: {', '.join(nodes)}.")
    waits = {t.id: tuple(dict.fromkeys([*sorted(t.producers), *t.after])) for t in plan.tasks}
    if joined:
        plan = join(plan, stages or {}, alone, LIMIT, {f: len(c) for f, c in carried.contents.items()}, costly)
    source = to_source(
        plan,
        image,
        carried,
        stages or {},
        resources or PipelineResources(),
        environment or {},
        _last(plan),
    )
    spec, platform = _compile(source)
    check(spec)
    tasks = {task_name(t.function): t.id for t in plan.tasks if t.kind != "importer"} | _importers(spec)
    return CompiledForKubeflow(source, spec, platform, tasks, waits, {task_name(t.function): _outputs(t) for t in plan.tasks})


def _outputs(task: Task) -> dict[str, tuple[str, str]]:
    """Returns a joint task's outputs, including those for KFP's pages -> node and the output's name in that node."""
    return {
        m.arguments[name]: (m.task.id, name)
        for m in task.members
        for name in (*(o.argument for o in m.task.outputs), *(v.argument for v in m.task.views))
    }


def _driven(task: Task, pipeline: str, carried: Carried, verified: bool) -> Task:
    """Runs a task's driver here and returns the task with its output, and with the driver if the task is to verify that."""
    from switchyard.pipelines.runners.kubeflow.task.runtime import driver_output_of

    properties = {p.key: p.value for p in task.properties}
    files = {f: carried.contents[f] for f in task.files}
    with quiet():
        if files:
            unpack(files, carried.stored)  # what the driver reads here need not be fetched
        output = driver_output_of({"pipeline": pipeline, **task.spec}, inputs={}, properties=properties, files=files)
    spec = {k: v for k, v in task.spec.items() if k != "driver" or verified}
    return replace(task, spec=spec, driver=False, driver_output=output)


def _importers(spec: Mapping[str, Any]) -> dict[str, str]:
    """Returns importer tasks -> TFX nodes; KFP chooses the names of importer tasks."""
    nodes = {
        label: executor["importer"]["metadata"][NODE]
        for label, executor in spec["deploymentSpec"]["executors"].items()
        if "importer" in executor
    }
    components = spec["components"]
    found = {}
    for component in [spec["root"], *components.values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            label = components[task["componentRef"]["name"]].get("executorLabel")
            if label in nodes:
                found[name] = nodes[label]
    return found


def _last(plan: Plan) -> list[str]:
    each = [m for t in plan.tasks for m in members(t)]
    needed = {n for t in each for n in (*t.producers, *t.after)}
    # A node under a condition may never run.
    return [t.id for t in each if t.id not in needed and not t.conditions]


def _compile(source: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # KFP reads a component's code from its source file.
        path = Path(folder) / "kfp_pipeline.py"
        path.write_text(source, encoding="utf-8")
        name = f"switchyard_generated_{Path(folder).name}"
        module_spec = importlib.util.spec_from_file_location(name, path)
        if module_spec is None or module_spec.loader is None:
            raise RuntimeError(f"cannot load {path}")
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[name] = module
        try:
            module_spec.loader.exec_module(module)
            target = Path(folder) / "pipeline.yaml"
            compiler.Compiler().compile(module.pipeline, str(target))
        finally:
            del sys.modules[name]
        documents = list(yaml.safe_load_all(target.read_text(encoding="utf-8")))
    return shortened(documents[0]), documents[1] if len(documents) > 1 else None


def shortened(spec: dict[str, Any]) -> dict[str, Any]:
    """Returns a KFP pipeline spec with unused code and layout removed from its tasks' commands."""
    spec = copy.deepcopy(spec)
    for executor in spec["deploymentSpec"]["executors"].values():
        command = executor.get("container", {}).get("command", [])
        if command[:2] == ["sh", "-ec"] and _MAIN in command[2]:
            arguments = executor["container"]["args"]
            # A joint function's name is as long as all its stages' names and repeats the task's name.
            source = command[3].partition(f"\ndef {arguments[-1]}(")[2].rstrip()
            command[2:] = [_SCRIPT, f"{_IMPORTS}def {_FUNCTION}({_narrow(source)}\n"]
            arguments[-1] = _FUNCTION
    return spec


def _narrow(source: str) -> str:
    """Returns a function's source with statements indented by one space and continued lines by none."""
    # String literals contain no raw line breaks.
    return re.sub(r"\n( +)", lambda indent: "\n " if len(indent[1]) == 4 else "\n", source)


def with_environment(
    compiled: CompiledForKubeflow,
    environment: Mapping[str, str],
    first: Mapping[str, str] | None = None,
    readers: Mapping[str, str] | None = None,
) -> CompiledForKubeflow:
    """Returns the pipeline with a run's environment variables added to every task that runs a node; existing ones are kept.

    They are not part of the backend's cache key.

    Args:
        compiled: the pipeline.
        environment: variables of every such task. Drivers and conditions, which track nothing, get none.
        first: variables that override `environment` in the first tasks that are sure to run: uncached tasks without uncached
            tasks before them; if all tasks are cached, those without upstream tasks.
        readers: variables of the tasks that read uploaded files, in addition to `environment`.
    """
    spec: dict[str, Any] = json.loads(json.dumps(compiled.spec))
    earliest = _earliest(spec, compiled.tasks) if first else set()
    workers = _executors(spec, compiled.tasks)
    for label, executor in spec["deploymentSpec"]["executors"].items():
        container = executor.get("container")
        reads = container and STORED in str(container.get("command"))
        if container and (reads or label in workers):
            more = {**environment, **((first or {}) if label in earliest else {}), **((readers or {}) if reads else {})}
            there = container.get("env", [])
            names = {e["name"] for e in there}
            container["env"] = there + [{"name": k, "value": v} for k, v in more.items() if k not in names]
    return replace(compiled, spec=spec)


def _executors(spec: Mapping[str, Any], tasks: Collection[str]) -> set[str]:
    """Returns the executors of tasks, also of those under a condition."""
    components = spec["components"]
    dags = [c["dag"]["tasks"] for c in (spec["root"], *components.values()) if "dag" in c]
    found = [components[task["componentRef"]["name"]] for dag in dags for name, task in dag.items() if name in tasks]
    return {component.get("executorLabel", "") for component in found}


def _earliest(spec: Mapping[str, Any], workers: Collection[str]) -> set[str]:
    """Returns the executors of the first tasks that are sure to run; only tasks that run a node count, not drivers."""
    tasks = spec["root"]["dag"]["tasks"]
    # Tasks under a condition are in a nested pipeline and may never run.
    working = {name for name in tasks if name in workers}
    uncached = {name for name in working if not tasks[name].get("cachingOptions", {}).get("enableCache")}

    @cache
    def before(name: str) -> frozenset[str]:
        own = frozenset(tasks[name].get("dependentTasks", []))
        return own.union(*map(before, own))

    found = {n for n in uncached if not before(n) & uncached} or {n for n in working if not before(n) & working}
    return _executors(spec, found)
