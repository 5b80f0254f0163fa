"""Writes checkpoints and metrics in a thread, beside the next epoch. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self


class Beside:
    """Runs one write at a time in a thread. Its error is raised by the next call, or at the end of the `with` block."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="epoch")
        self._running: Future[Any] | None = None

    def submit(self, write: Callable[[], Any]) -> None:
        """Starts a write after the previous one."""
        self.wait()
        self._running = self._pool.submit(write)

    def wait(self) -> None:
        """Waits for the write that is running."""
        running, self._running = self._running, None
        if running:
            running.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.wait()
        finally:
            self._pool.shutdown()
