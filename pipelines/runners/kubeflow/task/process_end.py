"""Exits a task's process early: the interpreter takes seconds to tear down TensorFlow and TFX, which delays the pod's end."""

from __future__ import annotations

import atexit
import sys

from switchyard.components.compat.python_exit import exit_at_once

_EXECUTOR = "kfp.dsl.executor_main"


def end_at_once() -> None:
    """Makes a process that KFP started for a task exit right after KFP's executor has written the outputs.

    A no-op in other processes, which may run more than one task.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name == _EXECUTOR:
        # Handlers run in reverse order of registration.
        atexit.register(_end)


def _end() -> None:
    # Set by an uncaught exception, for example when KFP's executor could not write the outputs.
    failed = getattr(sys, "last_value", None) is not None
    # The functions registered earlier remove temporary files, such as those that TensorFlow compiles functions from.
    atexit.unregister(_end)
    exit_at_once(1 if failed else 0)
