"""Compares joined Kubeflow tasks with one task per stage; prints both and their ratios. It needs no cluster.

Pods in series are the drivers and executors of the longest chain of dependent tasks. Imports are counted as modules, of all
tasks together. Imports and process ends are also measured on this machine, in processor seconds, which other processes change
little: each task's imports in a fresh process with an immediate exit, compared with the imports that every task had before and
the interpreter's normal exit. What the stages' work imports later is in neither.

python benchmarks/kfp_tasks.py [--pipeline pipeline.yaml] [--set KEY=VALUE]... [--no-seconds] [--json]
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "pipelines" / "examples" / "breast_cancer" / "pipeline.yaml"
_BEAM = ("apache_beam", "switchyard.components.data.tfrecords", "tfx.orchestration.portable.beam_executor_operator")
# MLflow: a tracked task imports it first.
_KFP = ("kfp.dsl.executor_main", "switchyard.pipelines.runners.kubeflow.task.runtime", "mlflow")
# Modules that every task imported before.
_BEFORE = (*_KFP, "tfx.orchestration.portable.launcher", *_BEAM)


def compiled(pipeline: Path, overrides: Sequence[str], *, joined: bool) -> Any:
    """Returns the pipeline, compiled for a cluster."""
    from switchyard.pipelines.config.load import load_config
    from switchyard.pipelines.preflight import check_inputs
    from switchyard.pipelines.runners.kubeflow.compiler.from_config import compile_config

    with tempfile.TemporaryDirectory() as folder:
        config = load_config(pipeline, overrides=overrides)
        if config.task == "auto":
            config = check_inputs(config, Path(folder), lambda: None)
        return compile_config(config, Path(folder) / "code", folder, {}, carry_data=True, joined=joined)


def shape(made: Any) -> dict[str, int]:
    """Returns the number of tasks, the number of pods in series, and the size of the Workflow in bytes."""
    from switchyard.pipelines.runners.kubeflow.compiler.workflow_size import workflow_size

    tasks: Mapping[str, Any] = made.spec["root"]["dag"]["tasks"]
    size = workflow_size(made.spec, made.platform)
    longest = max(_depth(tasks, name) for name in tasks)
    return {"tasks": len(tasks), "pods in series": 2 * longest, "bytes": size.nodes + size.arguments}


def _depth(tasks: Mapping[str, Any], name: str) -> int:
    return 1 + max((_depth(tasks, n) for n in tasks[name].get("dependentTasks", [])), default=0)


def imports(made: Any) -> list[tuple[str, ...]]:
    """Returns each task's imports: its stages' executors, and Beam if one of them uses it."""
    from switchyard.stages import CLASSES

    found = []
    for executor in made.spec["deploymentSpec"]["executors"].values():
        nodes = _nodes(executor["container"]["command"][-1])
        named = [str(n.get("component") or _class_path(n.get("executor") or n["driver"])) for n in nodes]
        classes = {CLASSES.get(name.removeprefix("switchyard.stages."), name).rpartition(".")[0] for name in named}
        beam = _BEAM if any("beam" in n or "BeamExecutableSpec" in str(n.get("executor")) for n in nodes) else ()
        found.append((*_KFP, "switchyard.pipelines.runners.kubeflow.task.node", *sorted(classes), *beam))
    return found


def _nodes(source: str) -> list[dict[str, Any]]:
    """Returns the nodes that a generated function passes to the runtime."""
    calls = [c for c in ast.walk(ast.parse(source)) if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)]
    found = [{k.arg or "": ast.literal_eval(k.value) for k in c.keywords} for c in calls if c.func.id == "dict"]
    if not found:
        raise ValueError(f"a generated function that passes no nodes to the runtime:\n{source}")
    return found


def _class_path(executor: Mapping[str, Any]) -> str:
    spec = executor["spec"]
    return str(spec.get("pythonExecutorSpec", spec)["classPath"])


def cost(modules: Sequence[str], *, at_once: bool) -> tuple[float, int]:
    """Returns the processor seconds of a process that imports modules and exits, and the number of modules it then has."""
    lines = ["import importlib, os, sys", f"for m in {list(modules)!r}: importlib.import_module(m)"]
    lines += ["print(len(sys.modules), flush=True)", *(["os._exit(0)"] if at_once else [])]
    before = os.times()
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, check=True, capture_output=True, text=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, int(done.stdout.split()[-1])


def main() -> None:
    """Compiles both variants, measures them and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", type=Path, default=EXAMPLE)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--no-seconds", action="store_true", help="only what does not depend on the machine")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for name, joined in (("a task a stage", False), ("joined", True)):
        made = compiled(options.pipeline, options.overrides, joined=joined)
        found[name] = dict(shape(made))
        if not options.no_seconds:
            each = imports(made)
            costs = [cost(m, at_once=True) for m in each] if joined else [cost(_BEFORE, at_once=False)] * len(each)
            found[name]["imports and ends, s"] = round(sum(spent for spent, _ in costs), 1)
            found[name]["modules"] = sum(modules for _, modules in costs)
    before, after = found.values()
    ratios = {key: round(after[key] / before[key], 2) for key in before}
    if options.json:
        print(json.dumps({**found, "ratio": ratios}))
        return
    for key in before:
        print(f"{key:20} {before[key]:>10,} a task a stage {after[key]:>10,} joined   ratio {ratios[key]:.2f}")


if __name__ == "__main__":
    main()
