"""pyarrow 21 prints a stack trace when a CSV's row with the wrong number of fields is no UTF-8.

It decodes the row before it calls `invalid_row_handler`; what fails there goes to `sys.unraisablehook`, and the read ends with
an error that does not say it. `watched` keeps the trace back and says that this is what happened.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from switchyard.components.compat.patch import Private

PRIVATE = Private("pyarrow", ("18", "21"), (), "https://github.com/apache/arrow/blob/apache-arrow-18.1.0/python/pyarrow/_csv.pyx")
_watched: dict[int, list[str]] = {}


@contextmanager
def watched(handler: Callable[[Any], str]) -> Iterator[list[str]]:
    """Yields a list that takes the reason when pyarrow could not hand a row to `handler`."""
    _install()
    failures = _watched[id(handler)] = []
    try:
        yield failures
    finally:
        del _watched[id(handler)]


def _install() -> None:
    """Puts a hook in front of the one that is there, once; readers that overlap in time share it."""
    before = sys.unraisablehook
    if getattr(before, "watches_invalid_rows", False):
        return

    def hook(unraisable: Any) -> None:
        failures = _watched.get(id(unraisable.object))
        if failures is None:
            before(unraisable)
        else:
            failures.append(str(unraisable.exc_value))

    hook.watches_invalid_rows = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook
