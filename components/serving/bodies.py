"""Reads request bodies within a limit per body and one for all unfinished requests; decodes large ones in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from switchyard.components.serving.batcher import QueueFullError
from switchyard.components.serving.bounds import InputError

_TOGETHER = 4
_TOGETHER_AT_LEAST = 64 << 20
_AT_ONCE = 64 << 10
LARGE = 1 << 20
_T = TypeVar("_T")


@dataclass
class Body:
    """A request's body, and the number of bytes reserved for the request."""

    data: bytes | bytearray = field(default_factory=bytearray)
    held: int = 0


class Bodies:
    """The memory budget of request bodies until their requests are answered.

    Args:
        limit: maximum bytes of a body; all unfinished requests together may hold four times that, at least 64 MiB.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._together = max(_TOGETHER * limit, _TOGETHER_AT_LEAST)
        # One thread each: decoded JSON takes up to thirty times its size in memory. Small bodies never wait for large ones.
        self._thread, self._large = ThreadPoolExecutor(1, "decode"), ThreadPoolExecutor(1, "decode-large")

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[Body]:
        """Yields a request's body; its memory stays reserved until the context exits.

        Raises:
            InputError: the body is larger than the limit, compressed or incomplete.
            QueueFullError: the memory budget is exhausted.
        """
        if request.headers.get("content-encoding", "identity") != "identity":
            raise InputError("compressed bodies are not supported; send it uncompressed.", 415)
        announced = request.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and (len(announced) > 18 or int(announced) > self._limit):
            raise self._too_large()
        body = Body()
        try:
            async for part in request.stream():
                if len(body.data) + len(part) > self._limit:
                    raise self._too_large()
                self.hold(body, len(body.data) + len(part))
                body.data += part
            yield body
        except ClientDisconnect:
            raise InputError("the client disconnected before its request was complete.") from None
        finally:
            self._held -= body.held

    @contextmanager
    def keep(self, data: bytes) -> Iterator[Body]:
        """Yields a body that was received as a whole; its memory stays reserved until the context exits.

        Raises:
            QueueFullError: the memory budget is exhausted.
        """
        body = Body(data)
        try:
            self.hold(body, len(data))
            yield body
        finally:
            self._held -= body.held

    def hold(self, body: Body, size: int) -> None:
        """Raises a request's reservation to `size` bytes; never lowers it.

        Raises:
            QueueFullError: the memory budget is exhausted.
        """
        more = size - body.held
        if more <= 0:
            return
        if self._held + more > self._together:
            raise QueueFullError
        self._held += more
        body.held = size

    async def work(self, size: int, function: Callable[..., _T], *args: object) -> _T:
        """Returns the function's result; runs it in a thread unless `size`, bytes of its input or output, is small."""
        if size <= _AT_ONCE:
            return function(*args)
        thread = self._thread if size <= LARGE else self._large
        return await asyncio.get_running_loop().run_in_executor(thread, function, *args)

    def _too_large(self) -> InputError:
        return InputError(f"the body has more than {self._limit} bytes, the limit. Send several requests.", 413)
