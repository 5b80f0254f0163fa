"""SIGTERM, Kubernetes' way to end a pod, as an exception in the main thread that arrives.

An exception that a signal handler raises may come up where nobody passes it on: in a `__del__`, in a callback from C, before an
`except Exception` that carries on (seen once in sixty while Keras trains). It is raised again until it has come out.
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from components.errors import TerminatedError

_AGAIN_SECONDS = 1.0
# What is left in order after SIGTERM (a TrainJob taken away, say) has so long; Kubernetes kills a pod after thirty.
_IN_ORDER_SECONDS = 20.0


@contextmanager
def until_terminated() -> Iterator[None]:
    """Has SIGTERM end what runs inside. Only in the main thread, which alone hears signals; elsewhere it changes nothing.

    Raises:
        TerminatedError: SIGTERM was received; also where a library has made another error of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # True: SIGTERM was received, False: it is over. A signal handler may put into a `SimpleQueue`, but not start a thread.
    told: queue.SimpleQueue[bool] = queue.SimpleQueue()
    received: list[float] = []

    def stop(number: int, frame: object) -> None:
        received.append(time.monotonic())
        told.put(True)
        if not _on_its_way_out() or received[-1] - received[0] > _IN_ORDER_SECONDS:
            raise TerminatedError

    repeater = threading.Thread(target=_repeat, args=(told,), daemon=True, name="sigterm")
    repeater.start()
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except Exception as error:
        if received and not isinstance(error, TerminatedError):
            raise TerminatedError from error
        raise
    finally:
        try:
            told.put(False)
            repeater.join()
        finally:
            signal.signal(signal.SIGTERM, before)


def _repeat(told: queue.SimpleQueue[bool]) -> None:
    """Sends the main thread SIGTERM again and again after the first one, until it is over."""
    received = told.get()
    while received:
        try:
            received = told.get(timeout=_AGAIN_SECONDS)
        except queue.Empty:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _on_its_way_out() -> bool:
    """Returns whether the interrupted code runs because the exception is passing: a `finally`, an `except`, a context's end."""
    error = sys.exception()
    while error is not None and not isinstance(error, TerminatedError):
        error = error.__cause__ or error.__context__
    return error is not None
