"""Arguments that are sequences of texts."""

from __future__ import annotations

from collections.abc import Sequence


def as_texts(value: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the texts; a single one counts as a sequence of one, not as its characters."""
    return (value,) if isinstance(value, str) else tuple(value)
