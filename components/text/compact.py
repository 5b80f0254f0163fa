"""Compact JSON: a cluster stores a stage's settings eight times."""

from __future__ import annotations

import json


def compact(value: object) -> str:
    """Returns plain data as JSON without spaces; equal values give the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
