"""Defines the server's routes and maps outcomes to HTTP statuses and response bodies.

Routes are ASGI applications behind a bare router: Starlette's middleware and wrappers take a tenth of a small request's time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from switchyard.components.serving import invocations, open_inference
from switchyard.components.serving.answering import ANSWER_BYTES, Answering, Asked, ServerState
from switchyard.components.serving.batcher import QueueFullError
from switchyard.components.serving.bounds import Bounds, InputError, shortened
from switchyard.components.serving.gate import AllowedHosts, RequestMiddleware, fault
from switchyard.components.serving.inputs import left_aside
from switchyard.components.serving.metadata import metadata
from switchyard.components.serving.openapi import openapi
from switchyard.components.serving.served_model import ServedModel

_JSON = "application/json"


def create_app(
    state: ServerState,
    *,
    token: str | None,
    access_log: Callable[[dict[str, Any]], None] | None,
    hosts: AllowedHosts | None = None,
) -> Any:
    """Returns the ASGI application."""
    # A redirect would point to the host in the client's Host header.
    app = Router(_Routes(state).table(), redirect_slashes=False, default=_Endpoint(_not_found))
    return RequestMiddleware(app, _fault_of, state.metrics, state.limits, token=token, access_log=access_log, hosts=hosts)


class _Endpoint:
    """An ASGI application that answers requests by a function."""

    def __init__(self, function: Callable[[Request], Awaitable[Response]]) -> None:
        self._function = function

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        response = await self._function(Request(scope, receive, send))
        await response(scope, receive, send)


class _Routes:
    def __init__(self, state: ServerState) -> None:
        self._state, self._bodies, self._answering = state, state.bodies, Answering(state)

    def table(self) -> list[Route]:
        get = [
            ("/v2", self.server),
            ("/v2/health/live", self.live),
            ("/v2/health/ready", self.ready),
            ("/v2/models/{model}", self.model),
            ("/v2/models/{model}/ready", self.model_ready),
            ("/v2/models/{model}/versions/{version}", self.model),
            ("/v2/models/{model}/versions/{version}/ready", self.model_ready),
            ("/ping", self.ready),
            ("/health", self.ready),
            ("/version", self.mlflow_version),
            ("/metrics", self.metrics),
            ("/openapi.json", self.openapi),
        ]
        post = [
            ("/v2/models/{model}/infer", self.infer),
            ("/v2/models/{model}/versions/{version}/infer", self.infer),
            ("/invocations", self.invocations),
        ]
        # In the order in which the router looks for a path.
        routes = [("POST", path, function) for path, function in post] + [("GET", path, function) for path, function in get]
        return [
            *(Route(path, _Endpoint(function), methods=[method]) for method, path, function in routes),
            *(Route(path, _Endpoint(_WrongMethod(method))) for method, path, _ in routes),
        ]

    async def server(self, request: Request) -> Response:
        return _json({"name": "switchyard", "version": self._state.version, "extensions": ["binary_tensor_data"]})

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        return _json({"ready": self._state.ready}, 200 if self._state.ready else 503)

    async def model_ready(self, request: Request) -> Response:
        model = self._found(request)
        ready = self._state.ready and model is not None
        return _json({"name": self._state.name, "ready": ready}, 200 if ready else 503)

    async def model(self, request: Request) -> Response:
        model = self._found(request)
        if model is None:
            return _loading()
        versions = [m.version for m in self._state.rollout.models()]
        return _json(metadata(self._state.name, versions, model.info))

    async def mlflow_version(self, request: Request) -> Response:
        import mlflow.version

        return Response(mlflow.version.VERSION, media_type="text/plain")

    async def metrics(self, request: Request) -> Response:
        self._state.metrics.waiting.set(sum(m.batcher.waiting for m in self._state.rollout.models()))
        return Response(self._state.metrics.page(), media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        champion = self._state.rollout.champion
        if champion is None:
            return _loading()
        return _json(openapi(self._state.name, champion.info, self._state.limits, self._state.version))

    async def infer(self, request: Request) -> Response:
        # Read the body before choosing a model: a slow upload must not hold a model that is swapped out meanwhile.
        async with self._bodies.read(request) as body:
            named = "version" in request.path_params
            model = self._found(request) if named else self._answering.choose(request.path_params["model"])
            if model is None:
                return _loading()
            bounds = Bounds.of_body(self._state.limits.rows, len(body.data))
            length = _length(request)
            decoded = await self._bodies.work(len(body.data), open_inference.decode, body.data, length, model.info, bounds)
            asked = Asked(decoded.given, body, bounds)
            scores, model = await self._answering.answer(model, asked, request.scope["switchyard"], fall_back=not named)
            name, version = self._state.name, model.version
            content, headers = await self._bodies.work(
                scores.size * ANSWER_BYTES, open_inference.encode, name, version, decoded, model.info, scores
            )
            return Response(content, headers=headers | left_aside(model.info, decoded.given))

    async def invocations(self, request: Request) -> Response:
        async with self._bodies.read(request) as body:
            model = self._state.rollout.choose()
            if model is None:
                return _loading()
            bounds = Bounds.of_body(self._state.limits.rows, len(body.data))
            kind = request.headers.get("content-type", "")
            given = await self._bodies.work(len(body.data), invocations.decode, body.data, kind, model.info, bounds)
            asked = Asked(given, body, bounds)
            scores, model = await self._answering.answer(model, asked, request.scope["switchyard"], fall_back=True)
            content = await self._bodies.work(scores.size * ANSWER_BYTES, invocations.encode, model.info, scores)
            return Response(content, headers=left_aside(model.info, given), media_type=_JSON)

    def _found(self, request: Request) -> ServedModel | None:
        return self._answering.find(request.path_params["model"], request.path_params.get("version"))


def _length(request: Request) -> int | None:
    text = request.headers.get(open_inference.BINARY_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InputError(f"header {open_inference.BINARY_HEADER}: {shortened(text)} is not a number of bytes.")
    return int(text)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, _JSON)


def _loading() -> Response:
    return _json({"error": "the model is being loaded; retry later."}, 503, {"retry-after": "2"})


async def _not_found(request: Request) -> Response:
    return _json({"error": f"unknown path {request.scope['path']}; see /openapi.json"}, 404)


class _WrongMethod:
    """Refuses requests of other methods than the path's."""

    def __init__(self, allowed: str) -> None:
        self._allowed = "GET, HEAD" if allowed == "GET" else allowed

    async def __call__(self, request: Request) -> Response:
        message = f"{request.method} is not allowed at {request.scope['path']}; see /openapi.json"
        return _json({"error": message}, 405, {"allow": self._allowed})


def _fault_of(path: str, error: Exception) -> Response | None:
    """Returns the response to a request that is the client's fault, or cannot be answered now; None for a fault of the server."""
    if isinstance(error, InputError):
        return fault(path, error.status, str(error))
    if isinstance(error, QueueFullError):
        return fault(path, 503, "too many waiting requests; retry later.", {"retry-after": "1"})
    return None
