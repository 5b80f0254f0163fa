"""JSON with nothing between its parts: a cluster keeps every byte of a stage's settings eight times."""

from __future__ import annotations

import json


def compact(value: object) -> str:
    """Returns plain data as JSON, the same text for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
