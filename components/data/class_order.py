"""Which class of a binary task is the positive one. Everywhere else it is the last of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KEY = "positive_class"
# A usual name of the positive class -> names of the other one beside which it means that; None: beside any.
_USUAL: Mapping[str, frozenset[str] | None] = {
    "1": frozenset({"0", "-1"}),
    "true": None,
    "yes": None,
    "positive": None,
    "pos": None,
    "y": frozenset({"n"}),
    "t": frozenset({"f"}),
    "+": frozenset({"-"}),
}
CHOSEN, USUAL, RARER = "chosen by positive_class", "by its name", "the rarer class"


def ordered(classes: Sequence[Any], counts: Mapping[Any, int], chosen: Any | None) -> tuple[list[Any], str]:
    """Returns two classes with the positive one last, and why it is that one.

    Args:
        classes: both, in the order of their names.
        counts: class -> rows; of a tie the last by name is positive.
        chosen: the class that the config's `positive_class` names.
    """
    if chosen is not None:
        positive, why = chosen, CHOSEN
    elif (usual := usual_positive(classes)) is not None:
        positive, why = usual, USUAL
    else:
        # min() takes the first of a tie.
        positive, why = min(reversed(classes), key=lambda c: counts.get(c, 0)), RARER
    return [c for c in classes if c != positive] + [positive], why


def usual_positive(classes: Sequence[Any]) -> Any | None:
    """Returns the class whose name says that it is the positive one; None where neither or both names do."""
    names = [str(c).strip().lower() for c in classes]
    found = []
    for i, name in enumerate(names):
        beside = _USUAL.get(name, frozenset())
        if beside is None or any(other in beside for j, other in enumerate(names) if j != i):
            found.append(classes[i])
    return found[0] if len(found) == 1 else None


def positive_class(task: str, classes: Sequence[Any]) -> Any | None:
    """Returns the positive class; None where the task has none."""
    return classes[-1] if task == "binary" and classes else None


def same_classes(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether two models know the same classes, in any order."""
    return sorted(map(str, first)) == sorted(map(str, second))


def places(given: Sequence[Any], wanted: Sequence[Any]) -> list[int]:
    """Returns where each of the wanted classes stands among the given ones, which are the same in another order."""
    names = [str(c) for c in given]
    return [names.index(str(c)) for c in wanted]
