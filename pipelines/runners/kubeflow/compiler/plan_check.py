"""What Kubeflow Pipelines cannot run of a plan: each check raises CompileError, by node and reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from switchyard.pipelines.runners.kubeflow.compiler.errors import CompileError
from switchyard.pipelines.runners.kubeflow.compiler.plan import Condition, Task


def check_names(tasks: Sequence[Task]) -> None:
    """Argo gets two steps for each KFP task, `x` and `x-driver`: no other may be called so."""
    functions = {t.function: t.id for t in tasks}
    functions |= {f"drive_{t.function}": t.id for t in tasks if t.driver}
    for function, node in functions.items():
        if f"{function}_driver" in functions:
            raise CompileError(
                functions[f"{function}_driver"], f"Kubeflow needs its name for a step of {node!r} of its own; give it another id"
            )


def check_importable(node: str, spec: str) -> None:
    """A task imports its executor: one that a script defines cannot be found there."""
    if "'__main__." in spec:
        raise CompileError(node, "its executor is defined in a script (__main__); put it into a module that the image holds")


def check_conditions(tasks: Mapping[str, Task], conditions: Mapping[str, Condition]) -> None:
    """What runs only if something holds can be needed only by what runs under the same condition."""
    for task in tasks.values():
        for producer in [*task.producers, *task.after]:
            inner = set(tasks[producer].conditions) - set(task.conditions)
            if inner:
                said = conditions[sorted(inner)[0]].text
                raise CompileError(
                    task.id, f"it needs {producer!r}, which runs only if {said}; put both under the same tfx.dsl.Cond"
                )
