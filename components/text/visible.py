"""Makes control characters in data visible, so that they cannot act on a terminal or split a log line."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Control characters except tab and newline, and Unicode characters that change direction or break a line.
_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Returns a text with its control characters escaped as in Python's repr; line breaks stay."""
    return _ACTS.sub(lambda found: repr(found[0])[1:-1], text.replace("\r\n", "\n"))


def in_line(text: str) -> str:
    """Returns a text with line breaks and tabs escaped, so that it stays in one line."""
    return visible(text.replace("\r\n", "\\r\\n").replace("\n", "\\n").replace("\t", "\\t"))


def in_a_line(names: Iterable[object]) -> str:
    """Returns names of columns or classes, joined by commas in one line."""
    return ", ".join(in_line(str(name)) for name in names)
