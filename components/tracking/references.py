"""Parses references to registered models: `NAME@ALIAS`, `NAME@VERSION`, `models:/NAME/VERSION`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from switchyard.components.errors import ArgumentError

_REGISTERED = re.compile(
    r"(models:/)?(?P<name>[^@/:]+)@(?P<selector>[A-Za-z0-9_.-]+)|models:/(?P<model>[^@/:]+)/(?P<version>\d+)"
)


def name_and_selector(text: str) -> tuple[str, str] | None:
    """Returns name and selector of `NAME@ALIAS`, `NAME@VERSION` or a `models:/` URI of these; None for other texts."""
    found = _REGISTERED.fullmatch(text)
    return (found["name"] or found["model"], found["selector"] or found["version"]) if found else None


def name_and_version(name: str, version: str | None) -> tuple[str, str]:
    """Returns name and version of two arguments, or of one that names both, see `name_and_selector`.

    Raises:
        ArgumentError: there is no version, or there are two.
    """
    both = name_and_selector(name)
    if both and version is None:
        return both
    if version is None:
        raise ArgumentError("version", f"is missing; give one: {name} VERSION, or {name}@VERSION (a number or an alias)")
    if both:
        raise ArgumentError("version", f"is given twice: {name} names one, and {version} is another; remove one")
    return name, version


def name_and_versions(words: Sequence[str]) -> tuple[str, tuple[str, str]]:
    """Returns the name and two versions of `NAME VERSION VERSION`, or of references, see `name_and_selector`.

    Raises:
        ArgumentError: there are more or fewer than two versions, or they are of different models.
    """
    both = name_and_selector(words[0])
    name, given = (both[0], words) if both else (words[0], words[1:])
    versions = []
    for word in given:
        model, version = name_and_selector(word) or (name, word)
        if model != name:
            raise ArgumentError("versions", f"{name} and {model} are two models; give two versions of one of them")
        versions.append(version)
    if len(versions) != 2:
        raise ArgumentError(
            "versions",
            f"{len(versions)} given, and two are compared; give {name} VERSION VERSION, or {name}@VERSION {name}@VERSION "
            "(numbers or aliases)",
        )
    return name, (versions[0], versions[1])
