"""Escapes text for Markdown: names and values come from data, and pages of KFP and MLflow render HTML, links and images in it."""

from __future__ import annotations

import re

# Named entities, as KFP's renderer does not decode numbered ones; a backslash does not escape HTML.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# MLflow's renderer (showdown) shows the backslash before other characters than these; before a colon and an @, too, which are
# escaped where they would make a link, an emoji or a mention.
_MARKUP = re.compile(r"([!#()*+\-.=@\[\\\]_`{|}~]|:(?=//|[A-Za-z_+\-][\w+\-]*:))")
_MOST_CHARACTERS = 1000


def plain(text: str) -> str:
    """Returns Markdown that renders as `text` on one line, without markup, HTML, links or table borders."""
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}…"
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(_ENTITIES.get(part) or _MARKUP.sub(r"\\\1", part) for part in re.split(r"([&<>])", line))
