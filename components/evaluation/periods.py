"""The periods that the bootstrap draws of windows: neighbouring windows share rows, and their errors are alike.

A period is all windows, of all series, whose future begins within so many consecutive steps of the order as a window has rows.
Windows of one period are drawn together, so that nothing is assumed about windows that share a row, nor about series that share
a day: a block bootstrap (Künsch, The jackknife and the bootstrap for general stationary observations, 1989).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Fewer periods, or keys, than this have no interval. Below the wanted number, periods are made shorter than a window.
FEWEST, WANTED = 5, 10


def periods(order: np.ndarray, window: int) -> np.ndarray:
    """Returns the period of each window, int64 (n,).

    Args:
        order: the order of the first future row, or its rank, (n,).
        window: rows of a window, past and future.
    """
    steps, step = np.unique(order, return_inverse=True)
    return np.asarray(step.reshape(-1) // _length(len(steps), window), np.int64)


def periods_of_split(windows: Mapping[str, Any], split: str) -> np.ndarray | None:
    """Returns the period of each row of a split, int64 (n,), in the order of its files; None if it is not known.

    Args:
        windows: see `DatasetSummary.windows`.
        split: the split.
    """
    rows_at = windows.get("rows_at", {}).get(split)
    return None if rows_at is None else periods(np.repeat(np.arange(len(rows_at)), rows_at), _window(windows))


def note_on_periods(windows: Mapping[str, Any], split: str) -> str:
    """Returns what makes the intervals of a split's metrics too narrow, or absent; empty if nothing does."""
    rows_at: Sequence[int] | None = windows.get("rows_at", {}).get(split)
    if rows_at is None:
        return "the windows are of an older version: the intervals take neighbouring ones as independent and are too narrow"
    return note_on_steps(len(rows_at), int(windows["settings"]["future"]), f"the split {split!r}")


def note_on_steps(steps: int, future: int, where: str) -> str:
    """Returns what makes the intervals of windows at so many steps of the order too narrow, or absent; empty if nothing does."""
    wanted = f"at least {WANTED * future} are needed"
    if steps < FEWEST:
        return f"{where} has windows at {steps} steps of the order, too few for intervals: {wanted}"
    if steps // WANTED >= future:
        return ""
    return (
        f"{where} has windows at {steps} steps of the order, fewer than {WANTED} times the {future} of a forecast: the intervals "
        f"are too narrow, {wanted}"
    )


def note_on_keys(keys: int, column: str, where: str) -> str:
    """Returns what makes the intervals of rows with so many values of `data.split_key` too narrow, or absent, or nothing."""
    if keys >= WANTED:
        return ""
    effect = "too few for intervals" if keys < FEWEST else "which makes the intervals too narrow"
    return f"{where} has {keys} values of the split key {column!r}, {effect}: at least {WANTED} are needed"


def _window(windows: Mapping[str, Any]) -> int:
    return int(windows["settings"]["past"]) + int(windows["settings"]["future"])


def _length(steps: int, window: int) -> int:
    return max(1, min(window, steps // WANTED))
