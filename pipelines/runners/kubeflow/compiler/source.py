"""Generates readable Python source from the plan, which KFP's own compiler compiles.

The module has one function per task and one for the pipeline. KFP reads a component's code from its source file, so it must be a
real file.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence

from switchyard.components.tracking.context import RunContext
from switchyard.pipelines.config.kubeflow import StageResources
from switchyard.pipelines.runners.kubeflow.bindings import bind
from switchyard.pipelines.runners.kubeflow.carried_files import LIMIT, Carried, is_binary
from switchyard.pipelines.runners.kubeflow.compiler.joining import members, own_cache
from switchyard.pipelines.runners.kubeflow.compiler.plan import (
    CompileError,
    Condition,
    InputArtifact,
    Member,
    PipelineParameter,
    Plan,
    Task,
)
from switchyard.pipelines.runners.kubeflow.compiler.resources import (
    PipelineResources,
    pipeline_config_source,
    resource_lines,
    shared_lines,
)

_WIDTH = 100
_WIDE = 140
_PIECE = 96


def to_source(
    plan: Plan,
    image: str,
    carried: Carried,
    stages: Mapping[str, StageResources],
    resources: PipelineResources,
    environment: Mapping[str, str],
    last: Sequence[str],
) -> str:
    """Returns the source of a module with one `@dsl.pipeline` function named `pipeline`.

    Args:
        plan: plan of the pipeline.
        image: default image of the tasks.
        carried: embedded local files.
        stages: node id -> resources.
        resources: resources shared by all tasks.
        environment: environment variables of every task.
        last: nodes without downstream nodes.
    """
    writer = _Writer(plan, carried, stages, resources, environment, last)
    functions = [writer.condition(c) for c in plan.conditions.values()]
    for task in plan.tasks:
        functions += [writer.driver(member) for member in members(task) if member.driver]
        if task.kind in ("python", "joint"):
            functions.append(writer.task(task))
        elif task.kind == "container":
            functions.append(writer.container(task))
    body = "\n\n\n".join([*functions, writer.apply_defaults(), writer.pipeline()])
    return f"{_header(plan, image, body)}\n\n\n{body}\n"


def _header(plan: Plan, image: str, body: str) -> str:
    types = ("Artifact", "ClassificationMetrics", "Dataset", "HTML", "Input", "Markdown", "Metrics", "Model", "Output")
    used = [t for t in types if f"[{t}]" in body or f": {t}[" in body]
    lines = [
        f'"""TFX pipeline {plan.name!r} for Kubeflow Pipelines, written by `switchyard compile`: do not change it here."""',
        "",
        "from kfp import dsl" + (", kubernetes" if "kubernetes." in body else ""),
        f"from kfp.dsl import {', '.join(used)}" if used else "",
        "",
        f"IMAGE = {json.dumps(image)}",
    ]
    return "\n".join(line for i, line in enumerate(lines) if line or lines[i - 1])


class _Writer:
    def __init__(
        self,
        plan: Plan,
        carried: Carried,
        stages: Mapping[str, StageResources],
        resources: PipelineResources,
        environment: Mapping[str, str],
        last: Sequence[str],
    ) -> None:
        self._plan, self._carried, self._last = plan, carried, last
        self._stages, self._resources, self._environment = stages, resources, environment
        self._by_id = {t.id: t for t in plan.tasks}
        self._unit_of = {m.id: t for t in plan.tasks for m in members(t)}
        self._members = {m.task.id: m for t in plan.tasks for m in t.members or [Member.alone(t)]}

    def task(self, task: Task) -> str:
        each = task.members or [Member.alone(task)]
        signature = [f"{i.argument}: Input[{i.kfp_type}]" for i in task.inputs]
        signature += [f"{p.argument}: {p.kind}" for p in task.properties]
        signature += [f"{m.driver_output}: str" for m in each if m.driver_output]
        signature += ["workspace: str"] if self._resources.workspace else []
        signature += [f"{o.argument}: Output[{o.kfp_type}]" for o in task.outputs]
        signature += [f"{v.argument}: Output[{v.kfp_type}]" for v in task.views]
        given = [s.partition(":")[0] for s in signature]
        said = f"TFX nodes {', '.join(m.task.id for m in each)}, one after the other." if task.members else f"TFX node {task.id}."
        call = [f"locals(), {self._plan.name!r},", *(_node_source(_node(m, given)) for m in each), *self._files(task)]
        return self._function(task, task.function, signature, "run_node", said, call)

    def driver(self, task: Task) -> str:
        spec = {k: v for k, v in task.spec.items() if k not in ("executor", "beam", "dynamic")}
        signature = [f"{i.argument}: Input[{i.kfp_type}]" for i in task.inputs]
        signature += [f"{p.argument}: {p.kind}" for p in task.properties]
        properties = {p.key: [p.argument] for p in task.properties}
        node = {**spec, **_bindings(spec, [s.partition(":")[0] for s in signature], inputs=task.groups, properties=properties)}
        said = f"Driver of TFX node {task.id}: what its input is now. Never cached."
        call = [f"locals(), {self._plan.name!r},", _node_source(node), *self._files(task)]
        return self._function(task, f"drive_{task.function}", signature, "run_driver", said, call, returns="str")

    def condition(self, condition: Condition) -> str:
        signature = [f"{i.argument}: Input[{i.kfp_type}]" for i in condition.inputs]
        call = ["locals(),", _node_source({**condition.spec, **_bindings({}, (), inputs=condition.groups)})]
        said = f"Whether {condition.text}."
        return self._function(None, condition.function, signature, "evaluate_condition", said, call, returns="str")

    def container(self, task: Task) -> str:
        signature = [f"{i.argument}: Input[{i.kfp_type}]" for i in task.inputs]
        signature += [f"{p.argument}: {p.kind}" for p in task.properties]
        signature += [f"{o.argument}: Output[{o.kfp_type}]" for o in task.outputs]
        lines = ["@dsl.container_component", *_definition(task.function, signature, None)]
        lines += [
            f'    """TFX node {task.id}."""',
            "    return dsl.ContainerSpec(",
            f"        image={json.dumps(task.spec['image'])},",
        ]
        for key in ("command", "args"):
            if task.spec[key]:
                parts = [p[0] if len(p) == 1 else f"dsl.ConcatPlaceholder([{', '.join(p)}])" for p in task.spec[key]]
                lines.append(f"        {key}=[{', '.join(parts)}],")
        return "\n".join([*lines, "    )"])

    def pipeline(self) -> str:
        arguments = [_parameter(p) for p in self._plan.parameters]
        config = pipeline_config_source(self._resources)
        name = self._plan.name.lower().replace("_", "-")
        lines = [f"@dsl.pipeline(name={json.dumps(name)}{', pipeline_config=' + config if config else ''})"]
        lines += _definition("pipeline", arguments, None)
        lines += [f'    """TFX pipeline {self._plan.name}."""']
        lines += [f"    {line}" if line else "" for line in self._block([t.id for t in self._plan.tasks], ())]
        return "\n".join(lines)

    def apply_defaults(self) -> str:
        lines = ["def apply_defaults(task: dsl.PipelineTask) -> None:", '    """What every task gets."""']
        return "\n".join([*lines, *(f"    {line}" for line in shared_lines("task", self._resources, self._environment))])

    def _function(
        self,
        task: Task | None,
        name: str,
        signature: list[str],
        target: str,
        said: str,
        call: list[str],
        returns: str | None = None,
    ) -> str:
        stage = self._stages.get(members(task)[0].id) if task else None
        image = stage.image if stage else None
        # The description is a comment before the function: the cluster stores the function's body five times.
        lines = [
            f"# {said}",
            f"@dsl.component(base_image={json.dumps(image) if image else 'IMAGE'}, install_kfp_package=False)",
            *_definition(name, signature, returns, filled=True),
            f"    from switchyard import {target}",
            "",
            f"    {'return ' if returns else ''}{target}(",
            *(textwrap.indent(c, " " * 8) for c in call),
            "    )",
        ]
        source = "\n".join(lines)
        if task and len(source.encode()) > LIMIT:
            sizes = {f: len(self._carried.contents[f]) for f in task.files}
            largest = ", ".join(f"{f} ({sizes[f]:,} bytes)" for f in sorted(sizes, key=sizes.__getitem__, reverse=True)[:3])
            raise CompileError(
                task.id,
                f"its code and files are {len(source.encode()):,} bytes, a task can carry {LIMIT:,}. Largest: {largest}. "
                "Put data into an object store (s3://, gs://), and large code into the image",
            )
        return source

    def _files(self, task: Task) -> list[str]:
        if not task.files:
            return []
        return ["files=" + _literal({f: self._carried.contents[f] for f in sorted(task.files)}) + ","]

    def _block(self, ids: Sequence[str], outer: tuple[str, ...]) -> list[str]:
        """Returns the calls of the tasks `ids`, which all run under the conditions `outer`, in topological order."""
        units: dict[str, list[str]] = {}
        for task in (self._by_id[i] for i in ids):
            inner = [c for c in task.conditions if c not in outer]
            units.setdefault(inner[0] if inner else task.id, []).append(task.id)
        unit_of = {i: unit for unit, members in units.items() for i in members}
        needs = {
            unit: {unit_of[n] for i in members for n in self._needs(i) if n in unit_of and unit_of[n] != unit}
            for unit, members in units.items()
        }
        lines: list[str] = []
        for unit in _in_order(needs):
            if unit in self._plan.conditions:
                condition = self._plan.conditions[unit]
                arguments = ", ".join(f"{i.argument}={self._reference(i)}" for i in condition.inputs)
                lines.append(f"{condition.function}_task = {condition.function}({arguments})")
                lines += self._extras(condition.function, None)
                # A task evaluates the predicate, as KFP's own conditions only compare parameters.
                lines.append(f'with dsl.If({condition.function}_task.output == "true", name={json.dumps(condition.text[:60])}):')
                lines += [f"    {line}" for line in self._block(units[unit], (*outer, unit))]
            else:
                lines += self._call(self._by_id[unit])
        # String literals contain no raw line breaks, so splitting only affects layout.
        return [line for block in lines for line in block.split("\n")]

    def _needs(self, task_id: str) -> set[str]:
        task = self._by_id[task_id]
        conditions = {i.producer for c in task.conditions for i in self._plan.conditions[c].inputs}
        return {self._unit_of[n].id for n in (*task.producers, *task.after, *conditions)}

    def _call(self, task: Task) -> list[str]:
        variable = f"{task.function}_task"
        if task.kind == "importer":
            lines = [
                f"{variable} = dsl.importer(",
                f"    artifact_uri={json.dumps(task.spec['uri'])},",
                f"    artifact_class=dsl.{task.outputs[0].kfp_type},",
                f"    reimport={task.spec['reimport']},",
                f"    metadata={task.spec['metadata']!r},",
                ")",
            ]
            return [*lines, *self._after(task, variable)]
        given, lines = self._given(task), []
        for member in (self._members[m.id] for m in members(task) if m.driver):
            lines += self._drive(member.task)
            given.append(f"{member.driver_output}=drive_{member.task.function}_task.output")
        if task.kind != "container" and self._resources.workspace:
            # KFP mounts the workspace only if its path is an input.
            given.append("workspace=dsl.WORKSPACE_PATH_PLACEHOLDER")
        lines += _calls(task.function, given)
        lines.append(f"{variable}.set_display_name({json.dumps(' then '.join(m.id for m in members(task)))})")
        if not task.driver:
            lines += self._after(task, variable)
        if not (task.cached if task.members else own_cache(task, self._stages)):
            lines.append(f"{variable}.set_caching_options(enable_caching=False)")
        return [*lines, *self._extras(task.function, task)]

    def _given(self, task: Task) -> list[str]:
        given = [f"{i.argument}={self._reference(i)}" for i in task.inputs]
        return given + [f"{p.argument}={p.parameter or _literal(p.value)}" for p in task.properties]

    def _drive(self, task: Task) -> list[str]:
        function = f"drive_{task.function}"
        lines = _calls(function, self._given(task))
        lines.append(f"{function}_task.set_display_name({json.dumps('drive ' + task.id)})")
        lines += self._after(task, f"{function}_task")
        lines.append(f"{function}_task.set_caching_options(enable_caching=False)")
        return [*lines, *self._extras(function, task)]

    def _after(self, task: Task, variable: str) -> list[str]:
        units = dict.fromkeys(self._unit_of[u].function for u in task.after)
        return [f"{variable}.after({', '.join(f'{u}_task' for u in units)})"] if units else []

    def _extras(self, function: str, task: Task | None) -> list[str]:
        lines = [f"apply_defaults({function}_task)"]
        main = task is not None and function == task.function
        if task and main and any(m.id in self._last for m in members(task)):
            said = RunContext(last_stages=",".join(self._last)).variables()
            lines += [f"{function}_task.set_env_variable({json.dumps(k)}, {json.dumps(v)})" for k, v in said.items()]
        stage = self._stages.get(members(task)[0].id) if task else None
        if task and stage:
            lines += resource_lines(f"{function}_task", stage, main=main)
        return lines

    def _reference(self, artifact: InputArtifact) -> str:
        unit, producer = self._unit_of[artifact.producer], self._members[artifact.producer]
        if unit.kind == "importer":
            return f"{unit.function}_task.output"
        argument = next(o.argument for o in producer.task.outputs if o.key == artifact.output_key)
        return f"{unit.function}_task.outputs[{json.dumps(producer.arguments[argument])}]"


def _node(member: Member, given: Sequence[str]) -> dict[str, object]:
    """Returns a node's description for `task.runtime.run_node`."""
    task, own = member.task, member.arguments
    spec = {k: v for k, v in task.spec.items() if k != "driver"}
    node = spec | _bindings(
        spec,
        given,
        inputs={key: [own[n] for n in names] for key, names in task.groups.items()},
        outputs={o.key: [own[o.argument]] for o in task.outputs},
        properties={p.key: [own[p.argument]] for p in task.properties},
        views={v.argument: [own[v.argument]] for v in task.views},
    )
    if task.driver_output:
        node["driver_output"] = task.driver_output
    elif member.driver_output:
        node["driver"] = member.driver_output
    return node


def _bindings(spec: Mapping[str, object], given: Sequence[str], **names: Mapping[str, Sequence[str]]) -> dict[str, object]:
    component = str(spec.get("component", ""))
    return {k: v for kind, found in names.items() for k, v in bind(kind, found, component, given).items()}


def _in_order(needs: Mapping[str, set[str]]) -> list[str]:
    """Returns the keys in topological order, as close to their given order as possible."""
    done: dict[str, None] = {}
    while len(done) < len(needs):
        ready = next((unit for unit in needs if unit not in done and needs[unit] <= done.keys()), None)
        if ready is None:
            stuck = sorted(set(needs) - set(done))
            raise CompileError(stuck[0], f"it and {', '.join(stuck[1:])} wait for each other across conditions")
        done[ready] = None
    return list(done)


def _definition(name: str, signature: Sequence[str], returns: str | None, *, filled: bool = False) -> list[str]:
    tail = f") -> {returns}:" if returns else "):"
    if not signature:
        return [f"def {name}({tail}"]
    lines = _filled([f"{s}," for s in signature]) if filled else [f"{s}," for s in signature]
    return [f"def {name}(", *(f"    {line}" for line in lines), tail]


def _node_source(node: Mapping[str, object]) -> str:
    """Returns a node as source, with several parts per line."""
    lines = _filled([f"{key}={repr(value) if isinstance(value, str) else _literal(value)}," for key, value in node.items()])
    return "\n".join(["dict(", *(textwrap.indent(line, "  ") for line in lines), "),"])


def _filled(parts: Sequence[str]) -> list[str]:
    """Returns the parts joined to long lines, as the cluster also stores every line break and indentation."""
    lines: list[str] = []
    for part in parts:
        if lines and "\n" not in lines[-1] + part and len(lines[-1]) + len(part) < _WIDE:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return lines


def _calls(function: str, given: Sequence[str]) -> list[str]:
    if sum(map(len, given)) < 90:
        return [f"{function}_task = {function}({', '.join(given)})"]
    return [f"{function}_task = {function}(", *(textwrap.indent(f"{g},", "    ") for g in given), ")"]


def _parameter(parameter: PipelineParameter) -> str:
    return f"{parameter.name}: {parameter.kind}" + (f" = {parameter.default!r}" if parameter.default is not None else "")


def _literal(value: object) -> str:
    """Returns a value as source: on one line if it fits, else one line per item, minimally indented."""
    if isinstance(value, str):
        return _string(value)
    line = repr(value)
    if len(line) <= _WIDTH or not isinstance(value, dict | list):
        return line
    if isinstance(value, dict):
        parts = [f"{key!r}: {_literal(v)}," for key, v in value.items()]
        return "\n".join(["{", *(textwrap.indent(p, "  ") for p in parts), "}"])
    return "\n".join(["[", *(textwrap.indent(f"{_literal(v)},", "  ") for v in value), "]"])


def _string(value: str) -> str:
    """Returns a string as source; a long one as a concatenation of pieces, split at line breaks."""
    if is_binary(value) or (len(value) <= _PIECE and "\n" not in value[:-1]):
        return repr(value)
    pieces = [line[i : i + _PIECE] for line in value.splitlines(keepends=True) for i in range(0, len(line), _PIECE)]
    return "\n".join(["(", *(f"    {piece!r}" for piece in pieces), ")"])
