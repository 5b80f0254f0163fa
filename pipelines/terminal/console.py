"""Consoles on which a name or a value that holds a terminal's commands is shown as text."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from switchyard.components.text.visible import visible


class PlainTextConsole(Console):
    """Rich's console; it strips a few control characters of texts itself, and lets escape sequences pass."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See the base class."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class SilentConsole(PlainTextConsole):
    """Shows nothing; keeps the warnings of a run.

    Attributes:
        warnings: what `warning: ...` said, with the stage in front.
    """

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.warnings: list[str] = []
