"""Joins tasks of a plan: every pod costs a cluster 20 to 30 seconds, and its bytes are stored five times.

Only the plan is used. Tasks are joined if they have the same resources (image, memory, devices, retries, secrets). A task stays
separate if it is listed as such, has a timeout or is not Python. Caching is kept: a cached task is not joined with an uncached
one if it is listed as costly or a cached task uses its outputs. After a costly task no other is joined.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from switchyard.pipelines.config.kubeflow import StageResources
from switchyard.pipelines.runners.kubeflow.compiler.plan import (
    ExecProperty,
    IdentifierAllocator,
    InputArtifact,
    Member,
    OutputArtifact,
    Plan,
    Task,
    View,
    snake,
)

# Argo limits names to 128 characters, and KFP and Argo add suffixes.
_LONGEST_NAME = 100
# Bytes of a task's source besides its files and arguments.
_FRAME = 1_500


def join(
    plan: Plan,
    stages: Mapping[str, StageResources],
    alone: Collection[str],
    room: int,
    sizes: Mapping[str, int],
    costly: Collection[str] = (),
) -> Plan:
    """Returns the plan with compatible tasks joined.

    Args:
        plan: plan with one task per node.
        stages: node id -> resources.
        alone: nodes that stay separate tasks: long ones that resume from an earlier attempt.
        room: maximum size of a task's source in bytes.
        sizes: name of an embedded file -> its size in bytes.
        costly: nodes that do not run again because of the nodes they are joined with: each is the last of its task, so that no
            later node's retry repeats it, and cached as if it were separate.
    """
    cached = effectively_cached(plan, stages)
    kept = {producer for task in plan.tasks if task.id in cached for producer in task.producers} | set(costly)
    groups: list[_Group] = []
    for task in plan.tasks:
        group = _Group([task], must_cache=task.id in cached and task.id in kept, can_cache=task.id in cached)
        resources = _resources(task, stages)
        if resources is not None and task.id not in alone:
            group.key = (resources, task.conditions)
            group.complete = task.id in costly
        for other in groups:
            if other.takes(group, room, sizes) and not _circular(plan, [*groups, group], other, group):
                other.add(group)
                break
        else:
            groups.append(group)
    units = [_joint(g.tasks, cached=g.can_cache) if len(g.tasks) > 1 else g.tasks[0] for g in groups]
    return replace(plan, tasks=units)


def effectively_cached(plan: Plan, stages: Mapping[str, StageResources]) -> set[str]:
    """Returns the nodes that KFP can take from its cache: those that enable it and whose producers are cached too."""
    found: set[str] = set()
    for task in plan.tasks:
        if own_cache(task, stages) and task.producers <= found:
            found.add(task.id)
    return found


def own_cache(task: Task, stages: Mapping[str, StageResources]) -> bool:
    """Returns whether a task enables caching."""
    stage = stages.get(task.id)
    return task.cached if stage is None or stage.cache is None else stage.cache and task.cached


def members(task: Task) -> Sequence[Task]:
    """Returns the members of a joint task; for another task, the task itself."""
    return [m.task for m in task.members] or [task]


@dataclass
class _Group:
    """Tasks that become one joint task.

    Attributes:
        tasks: the tasks, in order.
        must_cache: one of them is costly, or a cached task uses one of their outputs.
        can_cache: all of them are cached.
        key: common resources and conditions; None when no other task may join.
        complete: no task may be added after them.
    """

    tasks: list[Task]
    must_cache: bool
    can_cache: bool
    key: object = None
    complete: bool = False

    def takes(self, other: _Group, room: int, sizes: Mapping[str, int]) -> bool:
        """Returns whether another group may be merged into this one; cycles are not checked here."""
        if self.complete or self.key is None or self.key != other.key:
            return False
        if (self.must_cache and not other.can_cache) or (other.must_cache and not self.can_cache):
            return False
        ids, both = {t.id for t in self.tasks}, [*self.tasks, *other.tasks]
        if any(t.driver and t.producers & ids for t in other.tasks):
            return False  # its driver needs an output of this group and is a separate, earlier task
        return len("_then_".join(t.function for t in both)) <= _LONGEST_NAME and _size(both, sizes) <= room

    def add(self, other: _Group) -> None:
        self.tasks += other.tasks
        self.must_cache |= other.must_cache
        self.can_cache &= other.can_cache
        self.complete = other.complete


def _resources(task: Task, stages: Mapping[str, StageResources]) -> StageResources | None:
    """Returns a task's resources without the cache setting; None when it must stay separate."""
    found = stages.get(task.id, StageResources())
    if task.kind != "python" or found.timeout:
        return None
    return found.model_copy(update={"cache": None})


def _size(tasks: Sequence[Task], sizes: Mapping[str, int]) -> int:
    files = {f for t in tasks for f in t.files}
    return sum(sizes.get(f, 0) for f in files) + sum(len(repr(t.spec)) + len(t.driver_output) + _FRAME for t in tasks)


def _circular(plan: Plan, groups: Sequence[_Group], one: _Group, other: _Group) -> bool:
    """Returns whether merging two groups would create a cycle."""
    units = [[*one.tasks, *other.tasks], *(g.tasks for g in groups if g is not one and g is not other)]
    unit_of = {t.id: number for number, unit in enumerate(units) for t in unit}
    todo, seen = [0], {0}
    while todo:
        current = todo.pop()
        for unit in {unit_of[n] for t in units[current] for n in _needs(plan, t)} - {current}:
            if unit == 0:
                return True
            if unit not in seen:
                seen.add(unit)
                todo.append(unit)
    return False


def _needs(plan: Plan, task: Task) -> set[str]:
    conditions = {i.producer for c in task.conditions for i in plan.conditions[c].inputs}
    return {*task.producers, *task.after, *conditions}


def _joint(tasks: Sequence[Task], *, cached: bool) -> Task:
    made = _Joint(tasks)
    ids = {t.id for t in tasks}
    return Task(
        id=",".join(t.id for t in tasks),
        function="_then_".join(t.function for t in tasks),
        kind="joint",
        spec={},
        inputs=made.inputs,
        outputs=made.outputs,
        properties=made.properties,
        views=made.views,
        conditions=tasks[0].conditions,
        after=[u for u in dict.fromkeys(u for t in tasks for u in t.after) if u not in ids],
        cached=cached,
        files={f for t in tasks for f in t.files},
        members=made.members,
    )


class _Joint:
    """The arguments of a joint task under unique names: the stage's argument name, prefixed with the stage's name if taken."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.inputs: list[InputArtifact] = []
        self.outputs: list[OutputArtifact] = []
        self.properties: list[ExecProperty] = []
        self.views: list[View] = []
        self._names = IdentifierAllocator(taken=("workspace",))
        self._artifacts: dict[tuple[str, str], str] = {}
        self.members = [self._member(task) for task in tasks]

    def _member(self, task: Task) -> Member:
        own = {}
        for artifact in task.inputs:
            where = (artifact.producer, artifact.output_key)
            if where not in self._artifacts:
                self._artifacts[where] = self._name(task, artifact.argument)
                self.inputs.append(replace(artifact, argument=self._artifacts[where]))
            own[artifact.argument] = self._artifacts[where]
        own |= {argument: self._name(task, argument) for argument in task.own_arguments}
        self.outputs += [replace(o, argument=own[o.argument]) for o in task.outputs]
        self.properties += [replace(p, argument=own[p.argument]) for p in task.properties]
        self.views += [replace(v, argument=own[v.argument]) for v in task.views]
        self._artifacts |= {(task.id, o.key): own[o.argument] for o in task.outputs}
        return Member(task, own, self._names.allocate("driver_output") if task.driver else "")

    def _name(self, task: Task, argument: str) -> str:
        return self._names.allocate(snake(f"{task.function}_{argument}") if argument in self._names else argument)
