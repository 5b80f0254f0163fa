"""Serves the Open Inference Protocol's gRPC service beside REST: the same models, batcher, checks, token and limits.

A Host header is not checked: it protects against web pages, and a browser sends no gRPC.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from switchyard.components.errors import UserError
from switchyard.components.serving import grpc_codec
from switchyard.components.serving.answering import ANSWER_BYTES, Answering, Asked, ServerState
from switchyard.components.serving.batcher import QueueFullError
from switchyard.components.serving.bounds import Bounds, InputError
from switchyard.components.serving.gate import request_id
from switchyard.components.serving.grpc_messages import MESSAGES, SERVICE

# Calls at once; each may hold a message before it is counted with the bodies of REST.
_CALLS = 64
_HEAD_BYTES = 64 << 10
_HANDSHAKE_SECONDS = 10
_GRACE_SECONDS = 30
_OPEN = {"ServerLive", "ServerReady"}
# HTTP status of a refused request -> gRPC's code.
_CODES = {404: grpc.StatusCode.NOT_FOUND, 413: grpc.StatusCode.RESOURCE_EXHAUSTED, 503: grpc.StatusCode.UNAVAILABLE}
_log = logging.getLogger(__name__)


class _StoppedError(Exception):
    """A call ends with a code other than OK."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class GrpcServer:
    """A gRPC server in the running event loop.

    Args:
        state: shared with REST.
        address: host and port to listen on; 0 selects a free port.
        token: bearer token that clients must send; None disables authentication.
        access_log: called with each call; None for no log.
        tls: files of the certificate chain and the key.
        connections: maximum open connections.
        idle_seconds: seconds after which an idle connection is closed; clients connect again at their next call.

    Raises:
        UserError: the address cannot be bound.
    """

    def __init__(
        self,
        state: ServerState,
        address: tuple[str, int],
        *,
        token: str | None,
        access_log: Callable[[dict[str, Any]], None] | None,
        tls: tuple[Path, Path] | None,
        connections: int,
        idle_seconds: int,
    ) -> None:
        self._state, self._answering, self._access_log = state, Answering(state), access_log
        self._token = f"Bearer {token}".encode() if token else None
        options = [
            ("grpc.max_receive_message_length", state.limits.body),
            # Only uncompressed messages: the limit is for their compressed size.
            ("grpc.compression_enabled_algorithms_bitset", 1),
            ("grpc.max_metadata_size", _HEAD_BYTES),
            ("grpc.absolute_max_metadata_size", _HEAD_BYTES),
            ("grpc.max_concurrent_streams", _CALLS),
            ("grpc.max_allowed_incoming_connections", connections),
            ("grpc.max_connection_idle_ms", idle_seconds * 1000),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_SECONDS * 1000),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_CALLS)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        host, port = address
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if tls is None:
                self.port = self._server.add_insecure_port(where)
            else:
                chain, key = tls
                credentials = grpc.ssl_server_credentials([(key.read_bytes(), chain.read_bytes())])
                self.port = self._server.add_secure_port(where, credentials)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise UserError(
                f"--host, --grpc-port: cannot listen on {host} port {port}. Choose another port; "
                "--grpc-port 0 selects a free one."
            )

    async def start(self) -> None:
        """Starts listening."""
        await self._server.start()

    async def stop(self) -> None:
        """Accepts no new calls and answers accepted ones."""
        await self._server.stop(_GRACE_SECONDS)

    def _handlers(self) -> dict[str, Any]:
        methods = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        return {name: grpc.unary_unary_rpc_method_handler(self._guarded(name, method)) for name, method in methods.items()}

    def _guarded(self, name: str, method: Callable[[bytes, dict[str, Any]], Awaitable[bytes]]) -> Any:
        """Returns a method with the token, the timeout, the metrics and the access log; bytes in, bytes out."""

        async def handle(data: bytes, context: Any) -> bytes:
            begin = time.perf_counter()
            headers = dict(context.invocation_metadata() or ())
            identifier = request_id(_bytes(headers.get("x-request-id", ""))).decode()
            notes: dict[str, Any] = {"version": "", "rows": 0}
            code, message, answer = grpc.StatusCode.INTERNAL, "internal server error; see the server's log", b""
            try:
                self._check_token(name, headers.get("authorization", ""))
                async with asyncio.timeout(self._state.limits.seconds):
                    answer = await method(data, notes)
                code, message = grpc.StatusCode.OK, ""
            except _StoppedError as stopped:
                code, message = stopped.code, stopped.message
            except InputError as error:
                code, message = _CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT), str(error)
            except QueueFullError:
                code, message = grpc.StatusCode.UNAVAILABLE, "too many waiting requests; retry later."
            except TimeoutError:
                code = grpc.StatusCode.DEADLINE_EXCEEDED
                message = f"no answer within {self._state.limits.seconds:g} s; send fewer rows, or try again."
            except asyncio.CancelledError:  # the client ended the call, or its deadline passed
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception:
                _log.exception("request %s", identifier)
            finally:
                self._note(name, code, time.perf_counter() - begin, notes, identifier, context.peer())
            version = notes["version"].encode("ascii", "replace").decode()
            context.set_trailing_metadata((("x-request-id", identifier), *((("x-model-version", version),) if version else ())))
            if code is not grpc.StatusCode.OK:
                await context.abort(code, message)
            return answer

        return handle

    def _check_token(self, name: str, given: str | bytes) -> None:
        if self._token is not None and name not in _OPEN and not hmac.compare_digest(_bytes(given), self._token):
            raise _StoppedError(grpc.StatusCode.UNAUTHENTICATED, "send the metadata authorization: Bearer TOKEN")

    async def _live(self, data: bytes, notes: dict[str, Any]) -> bytes:
        return _message("ServerLiveResponse", live=True)

    async def _ready(self, data: bytes, notes: dict[str, Any]) -> bytes:
        return _message("ServerReadyResponse", ready=self._state.ready)

    async def _model_ready(self, data: bytes, notes: dict[str, Any]) -> bytes:
        asked = grpc_codec.message("ModelReadyRequest", data)
        model = self._answering.find(asked.name, asked.version or None)
        return _message("ModelReadyResponse", ready=self._state.ready and model is not None)

    async def _metadata(self, data: bytes, notes: dict[str, Any]) -> bytes:
        return _message("ServerMetadataResponse", name="switchyard", version=self._state.version)

    async def _model_metadata(self, data: bytes, notes: dict[str, Any]) -> bytes:
        asked = grpc_codec.message("ModelMetadataRequest", data)
        model = self._answering.find(asked.name, asked.version or None)
        if model is None:
            raise _loading()
        versions = [m.version for m in self._state.rollout.models()]
        return grpc_codec.encode_metadata(self._state.name, versions, model.info)

    async def _infer(self, data: bytes, notes: dict[str, Any]) -> bytes:
        bodies, state = self._state.bodies, self._state
        with bodies.keep(data) as body:
            champion = state.rollout.champion
            if champion is None:
                raise _loading()
            bounds = Bounds.of_body(state.limits.rows, len(data))
            # The model's name and version are in the message; the limits of its parsing are the champion's.
            asked = await bodies.work(len(data), grpc_codec.parse, data, champion.info, bounds)
            name, version = asked.model_name, asked.model_version or None
            model = self._answering.find(name, version) if version else self._answering.choose(name)
            if model is None:
                raise _loading()
            decoded = await bodies.work(len(data), grpc_codec.decode, asked, model.info, bounds)
            request = Asked(decoded.given, body, bounds)
            scores, model = await self._answering.answer(model, request, notes, fall_back=version is None)
            size = scores.size * ANSWER_BYTES
            return await bodies.work(size, grpc_codec.encode, state.name, model.version, decoded, model.info, scores)

    def _note(self, name: str, code: grpc.StatusCode, seconds: float, notes: dict[str, Any], identifier: str, peer: str) -> None:
        path = f"/{SERVICE}/{name}"
        self._state.metrics.requests.labels(path, code.name, notes["version"]).inc()
        if notes["version"]:
            self._state.metrics.latency.labels(path, notes["version"]).observe(seconds)
        if self._access_log is not None:
            self._access_log({
                "time": round(time.time(), 3),
                "client": peer.partition(":")[2].rpartition(":")[0],
                "method": "gRPC",
                "path": path,
                "status": code.name,
                "ms": round(seconds * 1e3, 2),
                "rows": notes["rows"],
                "version": notes["version"],
                "id": identifier,
            })  # fmt: skip


def _message(kind: str, /, **fields: Any) -> bytes:
    return bytes(MESSAGES[kind](**fields).SerializeToString())


def _loading() -> _StoppedError:
    return _StoppedError(grpc.StatusCode.UNAVAILABLE, "the model is being loaded; retry later.")


def _bytes(given: str | bytes) -> bytes:
    return given.encode("utf-8", "replace") if isinstance(given, str) else given
