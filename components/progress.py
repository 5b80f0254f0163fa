"""Progress messages of a stage, sent to the runner's sink; dropped without a runner."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from switchyard.components.text.redaction import mask
from switchyard.components.text.visible import visible

_sinks: list[Callable[[str], None]] = []


def no_progress_bars() -> None:
    """Disables libraries' progress bars, which write a line per step to files. Call it before importing the libraries."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def set_sink(sink: Callable[[str], None] | None) -> None:
    """Sets the sink of progress messages; None drops them."""
    _sinks[:] = [sink] if sink else []


@contextmanager
def said_by(stage: str) -> Iterator[None]:
    """Prefixes messages with the stage's name, for processes that run several stages."""
    before = list(_sinks)

    def named(sink: Callable[[str], None]) -> Callable[[str], None]:
        return lambda text: sink(f"{stage}: {text}")

    _sinks[:] = [named(sink) for sink in before]
    try:
        yield
    finally:
        _sinks[:] = before


def heard() -> bool:
    """Whether a sink is set."""
    return bool(_sinks)


def say(text: str) -> None:
    """Reports a stage's progress, for example `12,000 rows` or `epoch 3 of 20, val_loss 0.31`."""
    for sink in _sinks:
        sink(visible(mask(text)))


def warn(text: str) -> None:
    """Reports a problem that does not stop the run."""
    say(f"warning: {text}")
