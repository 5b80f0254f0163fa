"""Determines the positive class of a binary task, which is stored as the last class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KEY = "positive_class"
# Usual name of the positive class -> required names of the other class; None when any name will do.
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
TIED = "the last by name of two equally frequent classes"


def ordered(classes: Sequence[Any], counts: Mapping[Any, int], chosen: Any | None) -> tuple[list[Any], str]:
    """Returns two classes with the positive one last, and the reason for the choice.

    Args:
        classes: both classes, sorted by name.
        counts: class -> rows; on a tie the last class by name is positive.
        chosen: class that the config's `positive_class` names, or None.
    """
    if chosen is not None:
        positive, why = chosen, CHOSEN
    elif (usual := usual_positive(classes)) is not None:
        positive, why = usual, USUAL
    else:
        # min() returns the first of equal items.
        positive = min(reversed(classes), key=lambda c: counts.get(c, 0))
        why = TIED if len({counts.get(c, 0) for c in classes}) == 1 else RARER
    return [c for c in classes if c != positive] + [positive], why


def usual_positive(classes: Sequence[Any]) -> Any | None:
    """Returns the class whose name marks it as positive; None when neither or both names do."""
    names = [str(c).strip().lower() for c in classes]
    found = []
    for i, name in enumerate(names):
        beside = _USUAL.get(name, frozenset())
        if beside is None or any(other in beside for j, other in enumerate(names) if j != i):
            found.append(classes[i])
    return found[0] if len(found) == 1 else None


def positive_class(task: str, classes: Sequence[Any]) -> Any | None:
    """Returns the positive class; None when the task has none."""
    return classes[-1] if task == "binary" and classes else None


def same_classes(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Returns whether two models have the same classes, in any order."""
    return sorted(map(str, first)) == sorted(map(str, second))


def places(given: Sequence[Any], wanted: Sequence[Any]) -> list[int]:
    """Returns the index of each wanted class among the given ones, which are the same in another order."""
    names = [str(c) for c in given]
    return [names.index(str(c)) for c in wanted]
