"""What a stage says while it works, in a few words. The runner sets where it goes; without a runner it goes nowhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from switchyard.components.text.redaction import mask
from switchyard.components.text.visible import visible

_sinks: list[Callable[[str], None]] = []


def no_progress_bars() -> None:
    """Keeps the bars of libraries out of files, where every step of one is a line. Call it before importing them."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def set_sink(sink: Callable[[str], None] | None) -> None:
    """Sends what `say` says to `sink` from now on (None: drops it)."""
    _sinks[:] = [sink] if sink else []


@contextmanager
def said_by(stage: str) -> Iterator[None]:
    """Has the stage's name stand before what is said inside: for processes that do several stages."""
    before = list(_sinks)

    def named(sink: Callable[[str], None]) -> Callable[[str], None]:
        return lambda text: sink(f"{stage}: {text}")

    _sinks[:] = [named(sink) for sink in before]
    try:
        yield
    finally:
        _sinks[:] = before


def heard() -> bool:
    """Returns whether what is said goes somewhere."""
    return bool(_sinks)


def say(text: str) -> None:
    """Tells the user how far the stage is, for example `12,000 rows` or `epoch 3 of 20, val_loss 0.31`."""
    for sink in _sinks:
        sink(visible(mask(text)))


def warn(text: str) -> None:
    """Tells the user something that did not stop the run but should be known."""
    say(f"warning: {text}")
