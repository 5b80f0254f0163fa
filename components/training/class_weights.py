"""Resolves the config's `class_weights` to one weight per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from switchyard.components.errors import UserError
from switchyard.components.ingest.labels import class_of
from switchyard.components.text.visible import in_a_line

_KEY = "trainer.hyperparameters.class_weights"


def class_weights(
    given: Mapping[str, float] | str | None, classes: Sequence[Any], counts: Mapping[str, int], label: str
) -> tuple[float, ...] | None:
    """Returns the weights in class order; classes without a given weight default to 1.

    Args:
        given: class -> weight, keyed by the class's text or any spelling of the same number or boolean; or `balanced`; or None.
        classes: the label's classes; empty for a regression.
        counts: class -> rows in the training split.
        label: name of the label, for error messages.

    Raises:
        UserError: a key is not a class, a class has two weights, or the task is a regression.
    """
    if given is None:
        return None
    if not classes:
        raise UserError(f"{_KEY}: a regression such as {label!r} has no classes; remove it.")
    if not isinstance(given, Mapping):
        total = sum(counts.values())
        return tuple(total / (len(classes) * max(1, counts[str(c)])) for c in classes)
    found: dict[Any, float] = {}
    for name, weight in given.items():
        known = class_of(name, classes, untyped=True)
        if known is None:
            raise UserError(f"{_KEY}: {name!r} is not a class of {label!r}; the classes are {in_a_line(classes)}.")
        if known in found:
            raise UserError(f"{_KEY}: the class {known} of {label!r} has two weights; keep one.")
        found[known] = float(weight)
    return tuple(found.get(c, 1.0) for c in classes)
