"""What data says is shown, and never a command to the terminal or the log that shows it, nor a line of its own there."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Control characters but for tab and newline, and those that turn or break a line in Unicode.
_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Returns a text with its control characters written out as Python writes them; its lines stay lines."""
    return _ACTS.sub(lambda found: repr(found[0])[1:-1], text.replace("\r\n", "\n"))


def in_line(text: str) -> str:
    """Returns a text that stays within its line."""
    return visible(text.replace("\r\n", "\\r\\n").replace("\n", "\\n").replace("\t", "\\t"))


def in_a_line(names: Iterable[object]) -> str:
    """Returns names, of columns or classes, one behind the other."""
    return ", ".join(in_line(str(name)) for name in names)
