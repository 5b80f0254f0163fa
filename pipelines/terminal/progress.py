"""Displays of a run's progress on stderr: a live table in a terminal, plain lines elsewhere. Results go to stdout."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from switchyard.pipelines.terminal.console import SilentConsole

_ICONS = {"waiting": "·", "running": "▶", "ran": "✔", "cached": "≡", "failed": "✘", "cancelled": "■", "not run": "-"}
_STYLES = {"waiting": "dim", "running": "bold", "ran": "green", "cached": "cyan", "failed": "red", "cancelled": "yellow"}
_STYLES |= {"not run": "dim"}
_WITHOUT_SECONDS = ("waiting", "not run")
_PLAIN_EVERY = 5.0
# Seconds without output after which a line shows that the stage still runs.
_SILENCE = 20.0


class Display(Protocol):
    """The interface through which a runner reports progress."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def stages(self, names: Iterable[str]) -> None:
        """Sets the stages, in order."""

    def status(self, stage: str, status: str, seconds: float | None = None) -> None:
        """Sets a stage's status: running, ran, cached, failed, cancelled or not run."""

    def say(self, stage: str, text: str) -> None:
        """Reports a stage's progress or a warning (`warning: ...`)."""


class PlainDisplay:
    """A display with one line per event, and one now and then for a stage without output."""

    def __init__(self, console: Console, silence: float = _SILENCE) -> None:
        self._console, self._silence = console, silence
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}
        # Running stage -> its start time and its last text.
        self._running: dict[str, tuple[float, str]] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._over.clear()
        self._thread = threading.Thread(target=self._break_silences, daemon=True, name="progress")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self._thread:
            self._thread.join()

    def stages(self, names: Iterable[str]) -> None:
        """See Display."""

    def status(self, stage: str, status: str, seconds: float | None = None) -> None:
        """See Display."""
        with self._lock:
            now = self._said[stage] = time.monotonic()
            self._running.pop(stage, None)
            if status == "running":
                self._running[stage] = (now, "running")
            self._line(f"{stage}: {status}" + (f", {seconds:.1f} s" if seconds is not None else ""))

    def say(self, stage: str, text: str) -> None:
        """See Display."""
        with self._lock:
            now, is_warning = time.monotonic(), text.startswith("warning:")
            if stage in self._running and not is_warning:
                self._running[stage] = (self._running[stage][0], text)
            if is_warning or now - self._said.get(stage, 0.0) >= _PLAIN_EVERY:
                self._said[stage] = now
                self._line(f"{stage}: {text}")

    def _break_silences(self) -> None:
        while not self._over.wait(self._silence / 10):
            with self._lock:
                now = time.monotonic()
                for stage, (since, text) in self._running.items():
                    if now - self._said[stage] >= self._silence:
                        self._said[stage] = now
                        self._line(f"{stage}: {text}, {now - since:.0f} s")

    def _line(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False, soft_wrap=True)


class LiveDisplay:
    """A live table of stages; warnings stay above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[str, float, str]] = {}
        # Libraries' output is redirected by `quiet`, not shown above the table.
        self._live = Live(
            console=console, get_renderable=self._table, refresh_per_second=4, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()
        # The rows stay on the screen; when entered again, the display draws only later stages.
        with self._lock:
            self._rows.clear()

    def stages(self, names: Iterable[str]) -> None:
        """See Display."""
        with self._lock:
            self._rows.update({n: ("waiting", 0.0, "") for n in names if n not in self._rows})

    def status(self, stage: str, status: str, seconds: float | None = None) -> None:
        """See Display."""
        with self._lock:
            text = self._rows.get(stage, ("", 0.0, ""))[2]
            self._rows[stage] = (status, time.monotonic() if seconds is None else seconds, text)

    def say(self, stage: str, text: str) -> None:
        """See Display."""
        if text.startswith("warning:"):
            self._console.print(f"{stage}: {text}", markup=False, highlight=False, style="yellow")
            return
        with self._lock:
            status, since, _ = self._rows.get(stage, ("running", time.monotonic(), ""))
            self._rows[stage] = (status, since, text)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        with self._lock:
            for stage, (status, at, text) in self._rows.items():
                seconds = "" if status in _WITHOUT_SECONDS else f"{time.monotonic() - at if status == 'running' else at:.1f} s"
                style = _STYLES[status]
                table.add_row(f"[{style}]{_ICONS[status]}[/]", f"[{style}]{stage}[/]", seconds, Text(text))
        return table


class SilentDisplay:
    """A display that shows nothing; the console keeps warnings."""

    def __init__(self, console: SilentConsole) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """See Display."""

    def stages(self, names: Iterable[str]) -> None:
        """See Display."""

    def status(self, stage: str, status: str, seconds: float | None = None) -> None:
        """See Display."""

    def say(self, stage: str, text: str) -> None:
        """See Display."""
        if text.startswith("warning:"):
            self._console.warnings.append(f"{stage}: {text.removeprefix('warning:').strip()}")


def make_display(console: Console) -> Display:
    """Returns the display for a console."""
    if isinstance(console, SilentConsole):
        return SilentDisplay(console)
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)
