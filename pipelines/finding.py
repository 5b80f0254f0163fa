"""A finding of `switchyard doctor`, about this machine or a cluster."""

from __future__ import annotations

from dataclasses import dataclass

OK, FAILED, UNKNOWN = "ok", "failed", "not checked"


@dataclass(frozen=True)
class Finding:
    """Name of a check, its outcome (`ok`, `failed`, `not checked`), and a text with the finding or the fix."""

    check: str
    outcome: str
    message: str
