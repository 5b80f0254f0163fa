"""Parses references to registered models: `NAME@ALIAS`, `NAME@VERSION`, `models:/NAME/VERSION`."""

from __future__ import annotations

import re

_REGISTERED = re.compile(
    r"(models:/)?(?P<name>[^@/:]+)@(?P<selector>[A-Za-z0-9_.-]+)|models:/(?P<model>[^@/:]+)/(?P<version>\d+)"
)


def name_and_selector(text: str) -> tuple[str, str] | None:
    """Returns name and selector of `NAME@ALIAS`, `NAME@VERSION` or a `models:/` URI of these; None for other texts."""
    found = _REGISTERED.fullmatch(text)
    return (found["name"] or found["model"], found["selector"] or found["version"]) if found else None
