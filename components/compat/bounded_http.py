"""Adds limits to uvicorn's HTTP protocol: on heads, connections, idle time and unread bodies of answered requests.

Requests with a target in absolute form are judged by the host of the target, which uvicorn drops.

uvicorn 0.54 with httptools limits none of them, and its h11 protocol limits only the bytes of a head. `HttpToolsProtocol` is
undocumented: `tests/security/test_connections.py` checks every limit against a real server.
"""

from __future__ import annotations

import asyncio
import http
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from switchyard.components.compat.patch import Private

# Applied to every version of uvicorn: a server without limits is worse than one that does not start.
PRIVATE = Private(
    "uvicorn",
    ("0.54",),
    (
        "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol",
        "uvicorn.protocols.http.httptools_impl:RequestResponseCycle",
        "uvicorn.server:Server.startup",
    ),
    "https://github.com/encode/uvicorn/blob/0.54.0/uvicorn/protocols/http/httptools_impl.py",
)
_REQUEST = "switchyard.request"
_ABSOLUTE = re.compile(rb"(?P<scheme>[^/?#:]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_LINE_EXTRA = 16  # bytes for the method, the version and the spaces of a request line
_OVERHEAD = 8  # maximum raw bytes per byte of a chunked body
_PAUSE = 0.1  # seconds before the next try when no connection can be accepted
_REFUSED_AT_ONCE = 8  # connections above the limit that can complete their handshake, to receive a 503


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of connections, enforced before the application receives a request.

    Attributes:
        connections: maximum open connections; further ones receive a 503.
        line: maximum bytes of a request line.
        head: maximum bytes of request line and header fields.
        fields: maximum header fields, trailers included.
        pipelined: maximum pipelined requests queued behind an unfinished one.
        head_seconds: maximum seconds from a request's first byte to the end of its head, and of a TLS handshake.
        idle_seconds: seconds without a request after which a connection is closed.
        write_seconds: maximum seconds without the client reading a response.
        linger_seconds: seconds to read and discard the rest of a refused request; closing at once could lose the error
            response.
        linger_bytes: maximum bytes of that rest.
        refused: called with the status of every request refused before the application.
    """

    connections: int = 1024
    line: int = 8 << 10
    head: int = 64 << 10
    fields: int = 100
    pipelined: int = 64
    head_seconds: float = 10.0
    idle_seconds: int = 5
    write_seconds: float = 60.0
    linger_seconds: float = 3.0
    linger_bytes: int = 32 << 20
    refused: Callable[[int], None] | None = None


def bounded_http(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """Returns the protocol class for `uvicorn.Config(http=...)`."""
    return type("BoundedHttp", (_BoundedHttp,), {"limits": limits})


async def listen_with_tls(server: uvicorn.Server, sockets: Sequence[socket.socket], handshake_seconds: float) -> None:
    """Replaces `uvicorn.Server.startup` for given sockets, which allows a minute per handshake and does not count handshakes."""
    server.servers = cast("list[asyncio.Server]", [_TlsServer(server, sock, handshake_seconds) for sock in sockets])
    server.started = True


def received(scope: Mapping[str, Any]) -> bool:
    """Whether the whole body of an ASGI request has arrived; True if another server runs the application."""
    request = scope.get(_REQUEST)
    return request is None or not request.more_body


class _RefusedError(Exception):
    """Stops the parsing of a request; `args` are status and message."""


class _BoundedHttp(HttpToolsProtocol):
    limits: ConnectionLimits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._real = transport
        self._in_head, self._head_bytes, self._heads = True, 0, 0
        self._fields = self._field_bytes = self._raw_bytes = self._body_bytes = self._discarded = 0
        self._refusal: tuple[int, str] | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        super().connection_made(_Transport(transport, self._finish))
        if len(self.connections) > 2 * self.limits.connections:
            self._real.abort()
        elif len(self.connections) > self.limits.connections:
            self._refuse(503, "too many connections; retry later.", b"retry-after: 1\r\n")
        else:
            self.timeout_keep_alive_task = self.loop.call_later(self.limits.idle_seconds, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport.closing = True  # type: ignore[attr-defined]
        for timer in (self._head_timer, self._end_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        while data and not self.transport.is_closing():
            if not self._in_head:
                self._raw_bytes += len(data)
                super().data_received(data)
                if not self._in_head and self._raw_bytes > self.limits.head + _OVERHEAD * self._body_bytes:
                    # Endless chunk extensions or trailers: the application already has the request, so no error can be sent.
                    self._real.abort()
                return
            room, heads = self.limits.head - self._head_bytes, self._heads
            part, data = data[:room], data[room:]
            self._head_bytes += len(part)
            super().data_received(part)
            if self._in_head and heads == self._heads and self._head_bytes >= self.limits.head:
                self._refuse(431, f"the request's head has more than {self.limits.head} bytes, the limit.")
        if self.transport.is_closing():
            self._discarded += len(data)
            if self._discarded > self.limits.linger_bytes:
                self._real.abort()
        elif self._in_head and self._head_bytes and self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_seconds, self._head_is_late)

    def on_message_begin(self) -> None:
        self._fields = self._field_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if len(self.url) + len(url) + _LINE_EXTRA > self.limits.line:
            self._stop(414, f"the request line has more than {self.limits.line} bytes, the limit.")
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._field_bytes += len(name) + len(value)
        if self._fields > self.limits.fields:
            self._stop(431, f"the request has more than {self.limits.fields} header fields, the limit.")
        if self._field_bytes > self.limits.head:
            self._stop(431, f"the request's head has more than {self.limits.head} bytes, the limit.")
        if not self._in_head:
            # A trailer. uvicorn would add it to the headers, which bypasses a proxy's checks of them.
            return
        if name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked":
            self._stop(501, "the only supported transfer encoding is chunked.")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes, self._heads = False, 0, self._heads + 1
        self._raw_bytes = self._body_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if self.parser.get_http_version() == "1.0" and any(n == b"transfer-encoding" for n, _ in self.headers):
            self._stop(400, "HTTP/1.0 does not support transfer encodings.")
        if len(self.pipeline) >= self.limits.pipelined:
            self._real.abort()
            self._stop(503, "too many pipelined requests on this connection.")
        if (absolute := _ABSOLUTE.fullmatch(self.url)) is not None:
            self._judge_by_target(absolute)
        super().on_headers_complete()
        self.scope[_REQUEST] = self.cycle  # type: ignore[literal-required]
        if self.parser.should_upgrade():
            # The parser treats the following bytes as another protocol, which is not supported.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(*(self._refusal or (400, msg)))

    def _unsupported_upgrade_warning(self) -> None:
        """Suppresses uvicorn's warning: clients may request an upgrade, and the response is plain HTTP."""

    def pause_writing(self) -> None:
        self._write_timer = self._write_timer or self.loop.call_later(self.limits.write_seconds, self._real.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def _judge_by_target(self, absolute: re.Match[bytes]) -> None:
        """Replaces the Host field by the host of a target in absolute form (RFC 9112, 3.2.2), and the target by its path."""
        if absolute["scheme"].lower() not in (b"http", b"https") or b"@" in absolute["authority"] or not absolute["authority"]:
            self._stop(400, "a target in absolute form is http://HOST[:PORT]/PATH.")
        given = [i for i, (name, _) in enumerate(self.headers) if name == b"host"]
        for i in given:
            self.headers[i] = (b"host", absolute["authority"])
        if not given and self.parser.get_http_version() == "1.0":
            self.headers.append((b"host", absolute["authority"]))
        self.url = absolute["rest"] if absolute["rest"].startswith(b"/") else b"/" + absolute["rest"]

    def _stop(self, status: int, message: str) -> None:
        self._refusal = (status, message)
        raise _RefusedError(status, message)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # The head belongs to a pipelined request behind an unanswered one.
            self._head_timer = self.loop.call_later(self.limits.head_seconds, self._head_is_late)
            return
        self._refuse(408, f"the request's head did not come within {self.limits.head_seconds:g} s.")

    def _refuse(self, status: int, message: str, more: bytes = b"") -> None:
        """Sends an error response without calling the application, and closes the connection."""
        self._refusal = (status, message)
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # The response to an earlier request is pending. This error must not be mistaken for it.
            self._real.abort()
            return
        content = orjson.dumps({"error": message})
        head = f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(content)}\r\nconnection: close\r\n"
        self.transport.write(head.encode() + more + b"\r\n" + content)
        if self.limits.refused is not None:
            self.limits.refused(status)
        self.transport.close()

    def _finish(self) -> None:
        """Closes the connection: at once if the request is fully read, otherwise after lingering for the rest of it."""
        self._unset_keepalive_if_required()
        unread = self._refusal is not None or (self.cycle is not None and self.cycle.more_body)
        patience = self.limits.linger_seconds if unread else self.limits.write_seconds
        self._end_timer = self.loop.call_later(patience, self._real.abort)
        if not unread:
            self._real.close()
            return
        if self._real.can_write_eof():
            self._real.write_eof()
        self.flow.resume_reading()


class _TlsServer:
    """A TLS listener that counts connections in their handshake as open; event loops do not report their number."""

    def __init__(self, server: uvicorn.Server, listening: socket.socket, seconds: float) -> None:
        self._server, self._listening, self._seconds = server, listening, seconds
        self._pending: set[asyncio.Task[None]] = set()
        listening.listen(server.config.backlog)
        listening.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        for task in (self._accepting, *self._pending):
            task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(self._accepting, *self._pending, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        made: Any = self._server.config.http_protocol_class
        while True:
            try:
                client, _ = await loop.sock_accept(self._listening)
            except OSError:  # out of file descriptors, or the client disconnected
                await asyncio.sleep(_PAUSE)
                continue
            if len(self._pending) + len(self._server.server_state.connections) >= made.limits.connections + _REFUSED_AT_ONCE:
                client.close()
                continue
            task = loop.create_task(self._secure(client, made))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _secure(self, client: socket.socket, made: Any) -> None:
        config = self._server.config
        with suppress(OSError):  # TLS errors, connection errors and timeouts
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: made(config=config, server_state=self._server.server_state, app_state={}),
                client,
                ssl=config.ssl,
                ssl_handshake_timeout=self._seconds,
            )


class _Transport(asyncio.Transport):
    """A transport that delegates `close` to the protocol."""

    def __init__(self, real: asyncio.Transport, finish: Callable[[], None]) -> None:
        super().__init__()
        self._real, self._finish, self.closing = real, finish, False
        # Bind the methods that every request calls, without a wrapper's overhead.
        self.write = real.write  # type: ignore[method-assign]
        self.pause_reading = real.pause_reading  # type: ignore[method-assign]
        self.resume_reading = real.resume_reading  # type: ignore[method-assign]
        self.get_extra_info = real.get_extra_info  # type: ignore[method-assign]

    def is_closing(self) -> bool:
        return self.closing or self._real.is_closing()

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self._finish()
