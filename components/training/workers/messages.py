"""The lines in which workers tell what comes of their training, among all that libraries print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# How a report of a training is answered.
GO, PRUNE = "go", "prune"
_MARK = "switchyard-worker "


def message(said: Mapping[str, Any]) -> str:
    """Returns the line (without its end) for `{step, metrics}`, `{said}`, `{done}` or `{failed}` (a `Failure`)."""
    return _MARK + json.dumps(said)


def read_message(line: str) -> dict[str, Any] | None:
    """Returns what a line says, or None: it is something else."""
    _, mark, rest = line.partition(_MARK)
    if not mark:
        return None
    try:
        said: dict[str, Any] = json.loads(rest)
    except ValueError:
        return None
    return said
