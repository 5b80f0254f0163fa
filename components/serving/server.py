"""Runs one server process: sockets, signals, startup and graceful shutdown."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import orjson
import uvicorn

from switchyard.components.bundle.model import BundleInfo, Columns
from switchyard.components.bundle.source import ModelRef, OpenedModel
from switchyard.components.compat.bounded_http import ConnectionLimits, listen_with_tls
from switchyard.components.errors import StageError, UserError, did_you_mean
from switchyard.components.serving.answering import ServerState
from switchyard.components.serving.app import create_app
from switchyard.components.serving.bounds import shortened
from switchyard.components.serving.connections import allow_connections, allowed_hosts, uvicorn_config
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.request_log import RequestLog
from switchyard.components.serving.rollout import Rollout, StopRule
from switchyard.components.serving.served_model import Limits, ServedModel, load_model
from switchyard.components.serving.swapper import ModelReloader, freeze_gc

if TYPE_CHECKING:
    from switchyard.components.serving.grpc_server import GrpcServer

_log = logging.getLogger(__name__)
_RequestLogger = Callable[[ServedModel, Columns, np.ndarray], None]


@dataclass(frozen=True)
class ServeOptions:
    """Options of a server.

    Attributes:
        name: name of the model in URLs.
        limits: limits of a request.
        poll_seconds: seconds between registry polls.
        canary_alias: alias of the canary's version; None disables the canary.
        canary_share: share of requests for the canary, 0 to 1.
        rule: stop rule of the canary.
        token: bearer token that clients must send; None disables authentication.
        tls: files of the certificate chain and the key; None serves plain HTTP.
        access_log: file of the access log; `-` for standard output, None for no log.
        request_log: folder for a sample of the requests; None disables it.
        request_share: share of requests to log there, 0 to 1.
        redacted: raw features that are never written to the request log.
        drain_seconds: seconds after SIGTERM to report not-ready before shutdown.
        allowed_hosts: allowed names in Host headers; empty allows loopback names on loopback and any name elsewhere; `*`: any.
        max_connections: maximum open connections; None: see `allow_connections`.
        idle_seconds: seconds after which an idle connection is closed.
        grpc: host and port of the gRPC service; None disables it.
    """

    name: str
    limits: Limits = field(default_factory=Limits)
    poll_seconds: float = 10.0
    canary_alias: str | None = None
    canary_share: float = 0.0
    rule: StopRule = field(default_factory=StopRule)
    token: str | None = None
    tls: tuple[Path, Path] | None = None
    access_log: str | None = "-"
    request_log: Path | None = None
    request_share: float = 0.1
    redacted: tuple[str, ...] = ()
    drain_seconds: float = 0.0
    allowed_hosts: tuple[str, ...] = ()
    max_connections: int | None = None
    idle_seconds: int = 5
    grpc: tuple[str, int] | None = None


def bind(host: str, port: int) -> socket.socket:
    """Returns a bound socket. Bind before loading a model, so that an address in use fails at once.

    Raises:
        UserError: the address cannot be bound.
    """
    try:
        found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        raise UserError(
            f"--host, --port: cannot listen on {host} port {port}: {error.strerror or error}. "
            "Choose another port; --port 0 selects a free one."
        ) from None
    return found


def serve(
    source: ModelRef | OpenedModel,
    listening: socket.socket,
    options: ServeOptions,
    version: str,
    say: Callable[[str], None],
) -> None:
    """Serves until SIGINT or SIGTERM, then answers accepted requests and returns.

    Args:
        source: a model in the registry, whose aliases are polled, or the files of a model.
        listening: the bound socket, see `bind`.
        options: see `ServeOptions`.
        version: version of Switchyard.
        say: prints one line for the user.

    Raises:
        UserError: the version does not exist, or the certificate cannot be used.
        StageError: the model cannot be served.
    """
    metrics = Metrics()
    state = ServerState(options.name, Rollout(options.canary_share, options.rule), options.limits, metrics, version)
    with _access_log(options.access_log) as log, _request_log(options, metrics) as request_log:
        app = create_app(state, token=options.token, access_log=log, hosts=allowed_hosts(options.allowed_hosts, listening))
        limits = ConnectionLimits(
            connections=allow_connections(options.max_connections),
            idle_seconds=options.idle_seconds,
            linger_bytes=2 * options.limits.body,
            refused=lambda status: metrics.requests.labels("none", str(status), "").inc(),
        )
        config = uvicorn_config(app, limits, options.tls)
        try:
            config.load()
        except (OSError, ValueError) as error:
            raise UserError(f"--tls-cert, --tls-key: cannot be used: {error}. Give PEM files.") from None
        try:
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(_run(config, listening, state, source, options, log, request_log, say))
        finally:
            gc.unfreeze()


async def _run(
    config: uvicorn.Config,
    listening: socket.socket,
    state: ServerState,
    source: ModelRef | OpenedModel,
    options: ServeOptions,
    access_log: Callable[[dict[str, Any]], None] | None,
    request_log: _RequestLogger | None,
    say: Callable[[str], None],
) -> None:
    grpc_server = _grpc(state, options, access_log)  # before the model is loaded, so that an address in use fails at once
    server = _Server(config, state, options.drain_seconds, grpc_server)
    work = asyncio.create_task(server.serve([listening]))
    host, port = listening.getsockname()[:2]
    url = f"http{'s' if options.tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"
    swapper = None
    following = None
    try:
        if isinstance(source, OpenedModel):
            await _load_opened(state, source, options)
        else:
            swapper = ModelReloader(source, state.rollout, options.limits, state.metrics, options.canary_alias, say)
            state.canary_stopped = swapper.canary_stopped
            await swapper.start(await asyncio.to_thread(source.version))
            if source.tracks_alias or options.canary_alias:
                following = asyncio.create_task(swapper.follow(options.poll_seconds))
        champion = state.rollout.champion
        if champion is not None:
            _check_redacted(options.redacted, champion.info)
        state.log_request = request_log  # not before the check: a column with a wrong name would be logged
        if champion is not None and not server.should_exit:
            _say_ready(say, options.name, champion, url, f"{host}:{grpc_server.port}" if grpc_server else None)
        await work
    except (UserError, StageError):
        raise
    except Exception as error:
        _log.exception("serving")
        raise StageError(f"{options.name} cannot be served: {type(error).__name__}: {error}") from error
    finally:
        server.should_exit = True
        if following is not None:
            following.cancel()
        await asyncio.gather(work, *([following] if following else []), return_exceptions=True)
        if swapper is not None:
            await swapper.close()
        else:
            for model in state.rollout.models():
                await model.close()


def _say_ready(say: Callable[[str], None], name: str, model: ServedModel, url: str, grpc_address: str | None) -> None:
    say(f"ready: {name} version {model.version} ({model.info.framework}) answers at")
    say(f"  POST {url}/v2/models/{name}/infer   POST {url}/invocations   GET {url}/openapi.json   Ctrl-C stops it")
    if grpc_address is not None:
        say(f"  gRPC at {grpc_address} (Open Inference Protocol v2)")


def _grpc(state: ServerState, options: ServeOptions, access_log: Callable[[dict[str, Any]], None] | None) -> GrpcServer | None:
    if options.grpc is None:
        return None
    from switchyard.components.serving.grpc_server import GrpcServer

    return GrpcServer(
        state,
        options.grpc,
        token=options.token,
        access_log=access_log,
        tls=options.tls,
        connections=allow_connections(options.max_connections),
        idle_seconds=options.idle_seconds,
    )


def _check_redacted(redacted: Collection[str], info: BundleInfo) -> None:
    columns = [f.name for f in info.features]
    if unknown := next((name for name in redacted if name not in columns), None):
        alike = did_you_mean(unknown, columns)
        raise UserError(f"--redact: {shortened(unknown)} is no column of the model: nothing would be left out for it.{alike}")


async def _load_opened(state: ServerState, opened: OpenedModel, options: ServeOptions) -> None:
    observe = state.metrics.batch_rows.labels(opened.version).observe
    model = await asyncio.to_thread(load_model, opened, options.limits, observe)
    freeze_gc()
    state.rollout.set_champion(model)
    state.metrics.model.labels(options.name, opened.version, model.info.framework, "champion").set(1)


class _Server(uvicorn.Server):
    """A uvicorn server that reports not-ready for `drain_seconds` before it stops listening."""

    def __init__(self, config: uvicorn.Config, state: ServerState, drain_seconds: float, grpc_server: GrpcServer | None) -> None:
        super().__init__(config)
        self._state, self._drain_seconds, self._grpc = state, drain_seconds, grpc_server

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Starts the shutdown on SIGINT or SIGTERM; a second signal skips the drain, a second SIGINT forces the exit."""
        if self._state.draining or sig == signal.SIGINT or not self._drain_seconds:
            self._state.draining = True
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True
            return
        self._state.draining = True
        asyncio.get_running_loop().call_later(self._drain_seconds, lambda: setattr(self, "should_exit", True))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Installs the signal handlers. Overrides uvicorn's, which re-raises signals before models and files are released."""
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts listening, with a handshake timeout if TLS is on, and the gRPC service."""
        if self._grpc is not None:
            await self._grpc.start()
        if self.config.ssl is None:
            await super().startup(sockets)
        else:
            await listen_with_tls(self, sockets or [], ConnectionLimits.head_seconds)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Reports not-ready and answers accepted requests."""
        self._state.draining = True
        await asyncio.gather(super().shutdown(sockets), *([self._grpc.stop()] if self._grpc is not None else []))


@contextmanager
def _request_log(options: ServeOptions, metrics: Metrics) -> Iterator[_RequestLogger | None]:
    if options.request_log is None:
        yield None
        return
    log = RequestLog(options.request_log, options.request_share, options.redacted, metrics.unlogged.inc)
    try:
        yield log.add
    finally:
        log.close()


@contextmanager
def _access_log(target: str | None) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """Yields the access log's writer; None if there is no log."""
    if target is None:
        yield None
        return
    if target == "-":
        yield _AccessLog(sys.stdout.buffer)
        return
    try:
        # Unbuffered: a buffer would prepend the rest of a failed write to a later line.
        file = open(target, "ab", buffering=0)  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"--access-log: cannot write {target}: {error.strerror}.") from None
    with file:
        yield _AccessLog(file)


class _AccessLog:
    """A writer of one JSON object per line. A full disk or a closed pipe fails no request."""

    def __init__(self, file: BinaryIO | FileIO) -> None:
        self._file, self._fails = file, False

    def __call__(self, entry: dict[str, Any]) -> None:
        try:
            self._file.write(orjson.dumps(entry) + b"\n")
            self._file.flush()
        except OSError as error:
            if not self._fails:
                _log.warning("the access log cannot be written; requests from now on are missing in it: %s", error.strerror)
            self._fails = True
        else:
            self._fails = False
