"""The bodies of all unfinished requests: each within its limit, all of them within theirs, big ones decoded in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from switchyard.components.serving.batcher import QueueFullError
from switchyard.components.serving.bounds import InputError

_TOGETHER = 4
_TOGETHER_AT_LEAST = 64 << 20
_AT_ONCE = 16 << 10
_LARGE = 1 << 20
_T = TypeVar("_T")


@dataclass
class Body:
    """A request's body, and the bytes that are held for the request."""

    data: bytearray = field(default_factory=bytearray)
    held: int = 0


class Bodies:
    """What is held of requests until they are answered.

    Args:
        limit: bytes of a body; all unfinished requests together may hold four such bodies, or 64 MiB.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._together = max(_TOGETHER * limit, _TOGETHER_AT_LEAST)
        # One at a time: what is decoded takes up to thirty times the memory of its JSON. Small ones do not wait for large ones.
        self._thread, self._large = ThreadPoolExecutor(1, "decode"), ThreadPoolExecutor(1, "decode-large")

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[Body]:
        """Yields a request's body; room for it is kept until the request is done with.

        Raises:
            InputError: it is larger than the limit, compressed, or not whole.
            QueueFullError: there is no room for it now.
        """
        if request.headers.get("content-encoding", "identity") != "identity":
            raise InputError("a compressed body is not taken; send it plain.", 415)
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
            raise InputError("the client went away before its request was whole.") from None
        finally:
            self._held -= body.held

    def hold(self, body: Body, size: int) -> None:
        """Keeps room for `size` bytes, when that is more than the request holds already.

        Raises:
            QueueFullError: there is none now.
        """
        more = size - body.held
        if more <= 0:
            return
        if self._held + more > self._together:
            raise QueueFullError
        self._held += more
        body.held = size

    async def work(self, size: int, function: Callable[..., _T], *args: object) -> _T:
        """Returns what a function returns; in a thread where `size`, of its input or output in bytes, is not small."""
        if size <= _AT_ONCE:
            return function(*args)
        thread = self._thread if size <= _LARGE else self._large
        return await asyncio.get_running_loop().run_in_executor(thread, function, *args)

    def _too_large(self) -> InputError:
        return InputError(f"the body has more than {self._limit} bytes, the limit. Send several requests.", 413)
