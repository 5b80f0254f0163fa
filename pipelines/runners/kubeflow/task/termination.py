"""SIGTERM, Kubernetes' way to end a pod, as an exception in the main thread that arrives.

An exception that a signal handler raises may come up where it is not passed on: in a `__del__`, in a callback from C, before an
`except Exception` that carries on (seen once in sixty while Keras trains). It is raised again until it has come out.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from switchyard.components.errors import TerminatedError, error_chain
from switchyard.components.process.at_termination import perform

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
    # Python writes a signal's number to it at once, also where the main thread is in a library's own code.
    heard, told = socket.socketpair()
    told.setblocking(False)
    received: list[float] = []

    def stop(number: int, frame: object) -> None:
        received.append(time.monotonic())
        if not _on_its_way_out() or received[-1] - received[0] > _IN_ORDER_SECONDS:
            raise TerminatedError

    listener = threading.Thread(target=_listen, args=(heard,), daemon=True, name="sigterm")
    listener.start()
    before = signal.signal(signal.SIGTERM, stop)
    fd = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    try:
        yield
    except Exception as error:
        if received and not isinstance(error, TerminatedError):
            raise TerminatedError from error
        raise
    finally:
        try:
            signal.set_wakeup_fd(fd)
            told.close()
            listener.join()
        finally:
            signal.signal(signal.SIGTERM, before)
            heard.close()


def _listen(heard: socket.socket) -> None:
    """Does what is to be done at once after the first SIGTERM, and sends the main thread others, until it is over."""
    while number := _next(heard):
        if number[0] == signal.SIGTERM and heard.gettimeout() is None:
            perform()
            heard.settimeout(_AGAIN_SECONDS)


def _next(heard: socket.socket) -> bytes:
    while True:
        try:
            return heard.recv(1)
        except TimeoutError:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _on_its_way_out() -> bool:
    """Returns whether the interrupted code runs because the exception is passing: a `finally`, an `except`, a context's end."""
    return any(isinstance(error, TerminatedError) for error in error_chain(sys.exception()))
