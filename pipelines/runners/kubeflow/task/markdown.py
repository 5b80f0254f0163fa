"""Text in Markdown that means itself: names and values come from data, and KFP's page renders HTML, links and images as well."""

from __future__ import annotations

import re

# Named, as KFP's renderer leaves numbered ones as they are; a backslash does not keep HTML from being HTML.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKUP = re.compile(r"""([!"#$%'()*+,\-./:;=?@\[\\\]^_`{|}~])""")
_MOST_CHARACTERS = 1000


def plain(text: str) -> str:
    """Returns Markdown that reads as `text`, in one line: nothing of it is markup, HTML, a link or a table's border."""
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}…"
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(_ENTITIES.get(part) or _MARKUP.sub(r"\\\1", part) for part in re.split(r"([&<>])", line))
