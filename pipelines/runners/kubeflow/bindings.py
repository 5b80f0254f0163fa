"""Compact encoding of the generated function's arguments that a node takes: a cluster stores every byte six times.

By default, a key declared by the component's class is bound to the argument of the same name. Other bindings are written out:
`examples model=training_model`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

Names = str | Mapping[str, Sequence[str]]

_DECLARED = {"inputs": "INPUTS", "outputs": "OUTPUTS", "properties": "PARAMETERS"}
_PLAIN = re.compile(r"[^\s=+]+")


def bind(kind: str, names: Mapping[str, Sequence[str]], component: str, given: Collection[str]) -> dict[str, Names]:
    """Returns a node's encoded bindings: empty for the default, else `kind` -> names.

    Args:
        kind: `inputs`, `outputs`, `properties` or `views`.
        names: key -> names of arguments.
        component: path of the node's class; empty when tasks cannot import it.
        given: all arguments of the function.
    """
    if names == _by_name(kind, component, given):
        return {}
    if not all(map(_PLAIN.fullmatch, names)):
        return {kind: {key: list(arguments) for key, arguments in names.items()}}
    return {kind: " ".join(key if list(found) == [key] else f"{key}={'+'.join(found)}" for key, found in names.items())}


def bound(kind: str, node: Mapping[str, Any], given: Collection[str]) -> dict[str, list[str]]:
    """Decodes `bind`: returns key -> names of arguments."""
    if kind not in node:
        return _by_name(kind, str(node.get("component", "")), given)
    names: Names = node[kind]
    if not isinstance(names, str):
        return {key: list(arguments) for key, arguments in names.items()}
    found = {}
    for part in names.split():
        key, separator, arguments = part.partition("=")
        found[key] = [a for a in arguments.split("+") if a] if separator else [key]
    return found


def _by_name(kind: str, component: str, given: Collection[str]) -> dict[str, list[str]]:
    if not component or kind not in _DECLARED:
        return {}
    from tfx.utils import import_utils

    declared = getattr(import_utils.import_class_by_path(component).SPEC_CLASS, _DECLARED[kind])
    return {key: [key] for key in declared if key in given}
