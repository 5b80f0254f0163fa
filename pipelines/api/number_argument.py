"""Arguments that are numbers: Python's or NumPy's, within the limits of the command's option."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from switchyard.components.errors import ArgumentError

_NO_LIMIT = float("inf")


@dataclass(frozen=True)
class Range:
    """The allowed values of an argument; `above` and `below` exclude the limits themselves. Infinity and NaN never fit."""

    least: float
    most: float = _NO_LIMIT
    whole: bool = False
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        enough = value > self.least if self.above else value >= self.least
        return enough and (value < self.most if self.below or self.most == _NO_LIMIT else value <= self.most)

    def __str__(self) -> str:
        least = f"more than {self.least}" if self.above else f"{self.least} or more"
        return least + ("" if self.most == _NO_LIMIT else f", {'below' if self.below else 'up to'} {self.most}")


def number(argument: str, value: Any, allowed: Range) -> Any:
    """Returns a number as Python's int (`allowed.whole`) or float.

    Raises:
        ArgumentError: it is none, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral if allowed.whole else Real):
        raise ArgumentError(argument, f"{value!r} is no {'whole ' if allowed.whole else ''}number; give {allowed}.")
    convert: Callable[[Any], float] = int if allowed.whole else float
    found = convert(value)
    if found not in allowed:
        raise ArgumentError(argument, f"{value} is not {allowed}.")
    return found
