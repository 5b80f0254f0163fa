"""Consoles that show control characters in names and values as text."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from switchyard.components.text.visible import visible


class PlainTextConsole(Console):
    """A Rich console that escapes control characters; Rich itself strips only a few and passes escape sequences through."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See the base class."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class SilentConsole(PlainTextConsole):
    """A console that shows nothing and keeps a run's warnings.

    Attributes:
        warnings: texts of the warnings, prefixed with the stage.
    """

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.warnings: list[str] = []
