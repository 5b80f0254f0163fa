"""Exits without Python's teardown of modules, which takes seconds per command with TensorFlow and TFX loaded.

`atexit` has no public function that runs the registered functions before `os._exit`.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn


def exit_at_once(code: int) -> NoReturn:
    """Runs the `atexit` functions, flushes the standard streams and exits without teardown."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a full disk; closed by the program
            if stream:  # None where the process was started with it closed
                stream.flush()
    os._exit(code)
