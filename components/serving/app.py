"""Defines the server's routes and maps outcomes to HTTP statuses and response bodies."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchyard.components.bundle.model import Columns
from switchyard.components.serving import invocations, open_inference
from switchyard.components.serving.batcher import QueueFullError
from switchyard.components.serving.bodies import LARGE, Bodies, Body
from switchyard.components.serving.bounds import Bounds, InputError, shortened
from switchyard.components.serving.gate import AllowedHosts, RequestMiddleware, fault
from switchyard.components.serving.inputs import columns_of, left_aside
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.openapi import openapi
from switchyard.components.serving.rollout import Rollout
from switchyard.components.serving.served_model import Limits, ServedModel
from switchyard.components.user_code.tokenizer import RefusedRowsError

_JSON = "application/json"
_ANSWER_BYTES = 20  # size of a score in JSON
_log = logging.getLogger(__name__)


class _RefusedError(InputError):
    """A model has no score for some rows, which may be the rows' fault or the model's."""


@dataclass
class ServerState:
    """State shared by the routes.

    Attributes:
        name: name of the model in URLs.
        rollout: the champion and the canary.
        limits: limits of a request.
        metrics: the server's Prometheus metrics.
        version: version of Switchyard.
        draining: whether the server is shutting down and reports not-ready.
        canary_stopped: called with the canary and the reason when the stop rule removes it.
        log_request: called with the model, the columns and the scores of an answered request; None disables the log.
    """

    name: str
    rollout: Rollout
    limits: Limits
    metrics: Metrics
    version: str
    draining: bool = False
    canary_stopped: Callable[[ServedModel, str], None] | None = None
    log_request: Callable[[ServedModel, Columns, np.ndarray], None] | None = None

    @property
    def ready(self) -> bool:
        """Whether a champion is loaded and the server is not shutting down."""
        return self.rollout.champion is not None and not self.draining


def create_app(
    state: ServerState,
    *,
    token: str | None,
    access_log: Callable[[dict[str, Any]], None] | None,
    hosts: AllowedHosts | None = None,
) -> Any:
    """Returns the ASGI application."""
    routes = _Routes(state)
    app = Starlette(routes=routes.table(), exception_handlers=_HANDLERS)
    # A redirect would point to the host in the client's Host header.
    app.router.redirect_slashes = False
    return RequestMiddleware(app, state.metrics, state.limits, token=token, access_log=access_log, hosts=hosts)


@dataclass(frozen=True)
class _Asked:
    """A decoded request: raw feature -> values, its body and its bounds."""

    given: dict[str, Any]
    body: Body
    bounds: Bounds


class _Routes:
    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._bodies = Bodies(state.limits.body)

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
        return [*(Route(p, f, methods=["GET"]) for p, f in get), *(Route(p, f, methods=["POST"]) for p, f in post)]

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
        return _json(open_inference.metadata(self._state.name, versions, model.info))

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
            model = self._found(request) if named else self._chosen(request)
            if model is None:
                return _loading()
            bounds = Bounds.of_body(self._state.limits.rows, len(body.data))
            length = _length(request)
            decoded = await self._bodies.work(len(body.data), open_inference.decode, body.data, length, model.info, bounds)
            asked = _Asked(decoded.given, body, bounds)
            scores, model = await self._answer(request, model, asked, fall_back=not named)
            name, version = self._state.name, model.version
            content, headers = await self._bodies.work(
                scores.size * _ANSWER_BYTES, open_inference.encode, name, version, decoded, model.info, scores
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
            scores, model = await self._answer(request, model, _Asked(given, body, bounds), fall_back=True)
            content = await self._bodies.work(scores.size * _ANSWER_BYTES, invocations.encode, model.info, scores)
            return Response(content, headers=left_aside(model.info, given), media_type=_JSON)

    async def _answer(
        self, request: Request, model: ServedModel, asked: _Asked, *, fall_back: bool
    ) -> tuple[np.ndarray, ServedModel]:
        """Returns the scores and the model that computed them: the champion if the canary failed and `fall_back` is set."""
        state = self._state
        champion = state.rollout.champion
        notes = request.scope["switchyard"]
        found, refusing = None, None
        if fall_back and champion is not None and model is not champion:
            try:
                found = await self._scores(model, asked, notes)
            except Exception as error:
                _log.warning("canary version %s", model.version, exc_info=True)
                refusing = model if isinstance(error, _RefusedError) else None
                # Clients never receive a canary's failure. The champion may have been swapped meanwhile.
                model = state.rollout.champion or champion
        scores, columns = found or await self._scores(model, asked, notes)
        if refusing is not None:
            self._stop_if(state.rollout.failed(refusing), refusing)  # not the rows' fault: the champion answers them
        if state.log_request is not None:
            state.log_request(model, columns, scores)
        return scores, model

    async def _scores(self, model: ServedModel, asked: _Asked, notes: dict[str, Any]) -> tuple[np.ndarray, Columns]:
        """Returns a model's finite scores, and the columns. Raises _RefusedError if the model has no score for some rows."""
        first = next(iter(asked.given.values()), ())
        # Omitted values take memory as well.
        cells = len(model.info.features) * (len(first) if isinstance(first, list) else 0)
        size = max(len(asked.body.data), min(cells, asked.bounds.cells))
        self._bodies.hold(asked.body, size)
        # A few bytes of an image take as long to decode as a large body.
        work = max(size, LARGE + 1) if any(f.image for f in model.info.features) else size
        columns, rows = await self._bodies.work(work, columns_of, model.info, asked.given, asked.bounds)
        notes.update(version=model.version, rows=rows)
        begin = time.perf_counter()
        try:
            scores = await model.batcher.submit(columns, rows)
        except QueueFullError:
            self._state.metrics.refused.inc()
            raise
        except RefusedRowsError as error:
            self._answered(model, begin, failed=False)
            _log.warning("version %s: %s", model.version, error, exc_info=True)
            reason = f"the model's tokenizer fails for row {_first_of(error.rows)}; see the server's log."
            raise _RefusedError(reason, rows=error.rows) from error
        except Exception:
            self._answered(model, begin, failed=True)
            raise
        self._answered(model, begin, failed=False)
        bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        if len(bad):
            reason = f"the model's output is not finite for row {_first_of(bad)}: the values are too far from the training data."
            raise _RefusedError(reason, rows=bad)
        return scores, columns

    def _answered(self, model: ServedModel, begin: float, *, failed: bool) -> None:
        self._stop_if(self._state.rollout.answered(model, time.perf_counter() - begin, failed=failed), model)

    def _stop_if(self, why: str | None, model: ServedModel) -> None:
        if why and self._state.canary_stopped:
            self._state.canary_stopped(model, why)

    def _chosen(self, request: Request) -> ServedModel | None:
        self._check_name(request)
        return self._state.rollout.choose()

    def _found(self, request: Request) -> ServedModel | None:
        """Returns the model that the URL names; None while it is loading."""
        self._check_name(request)
        rollout = self._state.rollout
        version = request.path_params.get("version")
        if version is None or rollout.champion is None:
            return rollout.champion
        found = rollout.with_version(version)
        if found is None:
            known = ", ".join(m.version for m in rollout.models())
            raise InputError(f"model {self._state.name!r} has no version {version!r} here. Versions: {known}.", 404)
        return found

    def _check_name(self, request: Request) -> None:
        name = request.path_params["model"]
        if name != self._state.name:
            raise InputError(f"unknown model {name!r}. Model: {self._state.name!r}.", 404)


def _first_of(rows: Sequence[int] | np.ndarray) -> str:
    return f"{rows[0]}{f' and {len(rows) - 1} more' if len(rows) > 1 else ''}"


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


async def _not_found(request: Request, error: Exception) -> Response:
    return _json({"error": f"unknown path {request.scope['path']}; see /openapi.json"}, 404)


async def _wrong_method(request: Request, error: Exception) -> Response:
    headers = getattr(error, "headers", None)
    return _json({"error": f"{request.method} is not allowed at {request.scope['path']}; see /openapi.json"}, 405, headers)


async def _own_fault(request: Request, error: Exception) -> Response:
    return fault(request.scope["path"], 500, "internal server error; see the server's log")


async def _refused(request: Request, error: Exception) -> Response:
    return fault(request.scope["path"], error.status if isinstance(error, InputError) else 400, str(error))


async def _queue_full(request: Request, error: Exception) -> Response:
    return fault(request.scope["path"], 503, "too many waiting requests; retry later.", {"retry-after": "1"})


_HANDLERS: dict[Any, Any] = {
    404: _not_found,
    405: _wrong_method,
    InputError: _refused,
    QueueFullError: _queue_full,
    Exception: _own_fault,
}
