"""Reports CSV rows with the wrong number of fields that are not UTF-8, for which pyarrow 21 prints a stack trace.

pyarrow decodes the row before it calls `invalid_row_handler`. A decoding error goes to `sys.unraisablehook`, and the read fails
with an error that does not mention it. `watched` suppresses the trace and yields the reason.
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
    """Yields a list that receives the reason if pyarrow cannot pass a row to `handler`."""
    _install()
    failures = _watched[id(handler)] = []
    try:
        yield failures
    finally:
        del _watched[id(handler)]


def _install() -> None:
    """Wraps the current `sys.unraisablehook` once; concurrent readers share the hook."""
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
