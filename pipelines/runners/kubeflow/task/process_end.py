"""The end of a task's process: the interpreter takes seconds to take TensorFlow and TFX apart, which a pod need not wait for."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from contextlib import suppress

_EXECUTOR = "kfp.dsl.executor_main"


def end_at_once() -> None:
    """Has a process that KFP started for a task end as soon as KFP's executor has written what the task made.

    Elsewhere it changes nothing: a process that does more than one task ends by itself.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name == _EXECUTOR:
        # The last that is registered is called first.
        atexit.register(_end)


def _end() -> None:
    # An exception that nothing caught: KFP's executor could not write, say.
    failed = getattr(sys, "last_value", None) is not None
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(1 if failed else 0)
