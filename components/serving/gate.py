"""ASGI middleware for all requests: request id, Host check, token, timeout, metrics, access log.

Plain ASGI instead of Starlette's middleware: it costs microseconds.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any

import orjson
from starlette.responses import Response

from switchyard.components.compat.bounded_http import received
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.served_model import Limits

_HOST = re.compile(r"(\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^\[\]:/@?#\s]+))(:[0-9]{1,5})?")
_log = logging.getLogger(__name__)
_OPEN = {"/v2/health/live", "/v2/health/ready", "/ping", "/health"}
_MLFLOW = "/invocations"
_CLOSING = {401, 408, 413, 421}


class AllowedHosts:
    """The allowed Host headers: protects against DNS rebinding, where another site's name resolves to this address.

    Args:
        names: host names without port.
        addresses: whether any IP address is allowed; otherwise only loopback addresses. Addresses cannot be rebound.
    """

    def __init__(self, names: Collection[str], *, addresses: bool) -> None:
        self._names = {"localhost", *(n.lower().rstrip(".").strip("[]") for n in names)}
        self._addresses = addresses

    def allow(self, header: bytes) -> bool:
        """Whether a Host header names an allowed host."""
        matched = _HOST.fullmatch(header.decode("latin-1").lower())
        if matched is None:
            return False
        name = (matched["v6"] or matched["name"]).rstrip(".")
        if name in self._names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or self._addresses
        except ValueError:
            return False


class RequestMiddleware:
    """ASGI middleware around the routes; see `create_app`."""

    def __init__(
        self,
        app: Any,
        fault_of: Callable[[str, Exception], Response | None],
        metrics: Metrics,
        limits: Limits,
        *,
        token: str | None,
        access_log: Callable[[dict[str, Any]], None] | None,
        hosts: AllowedHosts | None = None,
    ) -> None:
        self._app, self._fault_of, self._metrics, self._limits = app, fault_of, metrics, limits
        self._token = f"Bearer {token}".encode() if token else None
        self._access_log, self._hosts = access_log, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handles one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        headers = dict(scope["headers"])
        identifier = request_id(headers.get(b"x-request-id"))
        notes: dict[str, Any] = {"version": "", "rows": 0}
        scope["switchyard"] = notes
        started = False
        status = 500

        async def send_on(message: Any) -> None:
            nonlocal started, status
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", identifier)]
                if notes["version"]:
                    message["headers"].append((b"x-model-version", notes["version"].encode("ascii", "replace")))
                if status in _CLOSING or not received(scope):
                    # Otherwise the server would read and discard the rest of the body.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            async with asyncio.timeout(self._limits.seconds):
                refused = self._refusal(scope, headers)
                await (refused or self._app)(scope, receive, send_on)
        except TimeoutError:
            if not started:
                message = f"no answer within {self._limits.seconds:g} s; send fewer rows, or try again."
                await fault(scope["path"], 504, message)(scope, receive, send_on)
        except Exception as error:
            answer = self._fault_of(scope["path"], error)
            if answer is None:
                _log.exception("request %s", identifier.decode())
                answer = fault(scope["path"], 500, "internal server error; see the server's log")
            if not started:
                await answer(scope, receive, send_on)
        finally:
            self._note(scope, status, time.perf_counter() - begin, notes, identifier)

    def _refusal(self, scope: Any, headers: dict[bytes, bytes]) -> Response | None:
        """Returns the error response for a refused Host header or token; None if the request is allowed."""
        path = scope["path"]
        if self._hosts is not None:
            given = [value for name, value in scope["headers"] if name == b"host"]
            # HTTP/1.0 allows a request without Host; no browser uses HTTP/1.0.
            if len(given) > 1 or (not given and scope["http_version"] != "1.0"):
                return fault(path, 400, "a request must have exactly one Host header.", {"connection": "close"})
            if given and not self._hosts.allow(given[0]):
                shown = given[0][:100].decode("latin-1")
                return fault(path, 421, f"host {shown!r} is not served here; see switchyard serve --allowed-hosts.")
        if self._token is None or path in _OPEN or hmac.compare_digest(headers.get(b"authorization", b""), self._token):
            return None
        return fault(path, 401, "send the header Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})

    def _note(self, scope: Any, status: int, seconds: float, notes: dict[str, Any], identifier: bytes) -> None:
        route = scope.get("route")
        path = getattr(route, "path", "other")
        self._metrics.requests.labels(path, str(status), notes["version"]).inc()
        if notes["version"]:
            self._metrics.latency.labels(path, notes["version"]).observe(seconds)
        if self._access_log is not None:
            client = scope.get("client")
            self._access_log({
                "time": round(time.time(), 3),
                "client": client[0] if client else "",
                "method": scope["method"],
                # The raw path: the decoded one may hold terminal escape sequences.
                "path": scope["raw_path"].decode("ascii", "replace"),
                "status": status,
                "ms": round(seconds * 1e3, 2),
                "rows": notes["rows"],
                "version": notes["version"],
                "id": identifier.decode(),
            })  # fmt: skip


def request_id(given: bytes | None) -> bytes:
    """Returns the client's request id if it is printable ASCII of at most 128 bytes; otherwise a new one."""
    if given and len(given) <= 128 and all(33 <= b < 127 for b in given):
        return given
    return uuid.uuid4().hex.encode()


def fault(path: str, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Returns an error response in the format of the path's protocol."""
    content: dict[str, str] = {"error": message}
    if path == _MLFLOW:
        content = {"error_code": "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR", "message": message}
    return Response(orjson.dumps(content), status, headers, "application/json")
