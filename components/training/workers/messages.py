"""The messages of training workers: marked JSON lines among the output of libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# Replies to a training's report.
GO, PRUNE = "go", "prune"
_MARK = "switchyard-worker "


def message(said: Mapping[str, Any]) -> str:
    """Returns the line (without its end) for `{step, metrics}`, `{said}`, `{done}` or `{failed}` (a `Failure`)."""
    return _MARK + json.dumps(said)


def read_message(line: str) -> dict[str, Any] | None:
    """Returns the message in a line, or None if it has none."""
    _, mark, rest = line.partition(_MARK)
    if not mark:
        return None
    try:
        said: dict[str, Any] = json.loads(rest)
    except ValueError:
        return None
    return said
