"""Raises SIGTERM, which Kubernetes sends to end a pod, as an exception in the main thread, reliably.

An exception raised by a signal handler may be lost: in a `__del__`, in a callback from C, or to an `except Exception` that
continues (seen once in sixty runs while Keras trains). It is raised again until it propagates.
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
# Time for clean-up after SIGTERM, such as deleting a TrainJob; Kubernetes kills a pod after thirty seconds.
_IN_ORDER_SECONDS = 20.0


@contextmanager
def until_terminated() -> Iterator[None]:
    """Makes SIGTERM raise in the enclosed code; a no-op outside the main thread, which alone receives signals.

    Raises:
        TerminatedError: SIGTERM was received, even if a library replaced the exception with another one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Python writes a signal's number to it immediately, even while the main thread runs native code.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    received: list[float] = []

    def stop(number: int, frame: object) -> None:
        received.append(time.monotonic())
        if not _on_its_way_out() or received[-1] - received[0] > _IN_ORDER_SECONDS:
            raise TerminatedError

    listener = threading.Thread(target=_listen, args=(reader,), daemon=True, name="sigterm")
    listener.start()
    before = signal.signal(signal.SIGTERM, stop)
    fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    except Exception as error:
        if received and not isinstance(error, TerminatedError):
            raise TerminatedError from error
        raise
    finally:
        try:
            signal.set_wakeup_fd(fd)
            writer.close()
            listener.join()
        finally:
            signal.signal(signal.SIGTERM, before)
            reader.close()


def _listen(reader: socket.socket) -> None:
    """Starts the termination duties after the first SIGTERM, then repeats SIGTERM to the main thread until the socket closes."""
    while number := _next(reader):
        if number[0] == signal.SIGTERM and reader.gettimeout() is None:
            perform()
            reader.settimeout(_AGAIN_SECONDS)


def _next(reader: socket.socket) -> bytes:
    while True:
        try:
            return reader.recv(1)
        except TimeoutError:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _on_its_way_out() -> bool:
    """Returns whether TerminatedError already propagates: the interrupted code is a `finally`, an `except` or an `__exit__`."""
    return any(isinstance(error, TerminatedError) for error in error_chain(sys.exception()))
