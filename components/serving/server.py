"""One server process: its sockets, its signals, its start and its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import numpy as np
import orjson
import uvicorn

from switchyard.components.bundle.model import Columns
from switchyard.components.bundle.source import ModelRef, OpenedModel
from switchyard.components.compat.bounded_http import ConnectionLimits, listen_with_tls
from switchyard.components.errors import StageError, UserError
from switchyard.components.serving.app import ServerState, create_app
from switchyard.components.serving.connections import allow_connections, allowed_hosts, uvicorn_config
from switchyard.components.serving.metrics import Metrics
from switchyard.components.serving.request_log import RequestLog
from switchyard.components.serving.rollout import Rollout, StopRule
from switchyard.components.serving.served_model import Limits, ServedModel, load_model
from switchyard.components.serving.swapper import ModelReloader, freeze_gc

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServeOptions:
    """What a server is asked for.

    Attributes:
        name: the model's, in URLs.
        limits: what it takes.
        poll_seconds: how often the registry is asked whether the alias has moved.
        canary_alias: whose version answers a share of the requests; None: there is no canary.
        canary_share: that share, 0 to 1.
        rule: when the canary is stopped.
        token: that clients must send; None: none.
        tls: files of the certificate chain and the key.
        access_log: file, `-` for standard output, None for none.
        request_log: folder for a sample of the requests; None: none.
        request_share: of requests that are kept there, 0 to 1.
        redacted: raw features that are never written there.
        drain_seconds: from SIGTERM, answering as not ready, to the end of taking connections.
        allowed_hosts: names in Host headers that are taken; empty: on loopback those of loopback, elsewhere any; `*`: any.
        max_connections: open at once; None: see `allow_connections`.
        idle_seconds: after which a connection without a request is closed.
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


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket at an address, before anything long is begun: one that is taken is the user's error.

    Raises:
        UserError: the address cannot be had.
    """
    try:
        found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        raise UserError(
            f"--host, --port: cannot listen on {host} port {port}: {error.strerror or error}. "
            "Choose another port; --port 0 takes any that is free."
        ) from None
    return found


def serve(
    source: ModelRef | OpenedModel,
    listening: socket.socket,
    options: ServeOptions,
    version: str,
    say: Callable[[str], None],
) -> None:
    """Serves until SIGINT or SIGTERM; answers what it has taken before it ends.

    Args:
        source: a model of the registry, whose aliases are followed, or the files of one.
        listening: see `bind`.
        options: see there.
        version: of Switchyard.
        say: tells a person, one line at a time.

    Raises:
        UserError: there is no such version, or the certificate cannot be used.
        StageError: the model cannot be served.
    """
    metrics = Metrics()
    state = ServerState(options.name, Rollout(options.canary_share, options.rule), options.limits, metrics, version)
    with _access_log(options.access_log) as log, _request_log(options, metrics) as state.log_request:
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
                runner.run(_run(config, listening, state, source, options, say))
        finally:
            gc.unfreeze()


async def _run(
    config: uvicorn.Config,
    listening: socket.socket,
    state: ServerState,
    source: ModelRef | OpenedModel,
    options: ServeOptions,
    say: Callable[[str], None],
) -> None:
    server = _Server(config, state, options.drain_seconds)
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
        if champion is not None and not server.should_exit:
            say(f"ready: {options.name} version {champion.version} ({champion.info.framework}) answers at")
            say(f"  POST {url}/v2/models/{options.name}/infer   POST {url}/invocations   GET {url}/openapi.json   Ctrl-C ends it")
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


async def _load_opened(state: ServerState, opened: OpenedModel, options: ServeOptions) -> None:
    observe = state.metrics.batch_rows.labels(opened.version).observe
    model = await asyncio.to_thread(load_model, opened, options.limits, observe)
    freeze_gc()
    state.rollout.set_champion(model)
    state.metrics.model.labels(options.name, opened.version, model.info.framework, "champion").set(1)


class _Server(uvicorn.Server):
    """Tells readiness probes first that it ends, then stops to listen."""

    def __init__(self, config: uvicorn.Config, state: ServerState, drain_seconds: float) -> None:
        super().__init__(config)
        self._state, self._drain_seconds = state, drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for SIGINT and SIGTERM; a second one ends it at once."""
        if self._state.draining or sig == signal.SIGINT or not self._drain_seconds:
            self._state.draining = True
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True
            return
        self._state.draining = True
        asyncio.get_running_loop().call_later(self._drain_seconds, lambda: setattr(self, "should_exit", True))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own raises the signals again at the end, before models are closed and copies removed."""
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        if self.config.ssl is None:
            await super().startup(sockets)
        else:
            await listen_with_tls(self, sockets or [], ConnectionLimits.head_seconds)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers what was taken."""
        self._state.draining = True
        await super().shutdown(sockets)


@contextmanager
def _request_log(options: ServeOptions, metrics: Metrics) -> Iterator[Callable[[ServedModel, Columns, np.ndarray], None] | None]:
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
    """Yields what writes one JSON object a line."""
    if target is None:
        yield None
        return
    if target == "-":
        yield _AccessLog(sys.stdout.buffer)
        return
    try:
        # Unbuffered: what does not fit on a full disk is not kept for a later line.
        file = open(target, "ab", buffering=0)  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"--access-log: cannot write {target}: {error.strerror}.") from None
    with file:
        yield _AccessLog(file)


class _AccessLog:
    """Writes one JSON object a line. A full disk, or a reader that is gone, fails no request."""

    def __init__(self, file: BinaryIO | FileIO) -> None:
        self._file, self._fails = file, False

    def __call__(self, entry: dict[str, Any]) -> None:
        try:
            self._file.write(orjson.dumps(entry) + b"\n")
            self._file.flush()
        except OSError as error:
            if not self._fails:
                _log.warning("the access log cannot be written, and lacks requests from here: %s", error.strerror)
            self._fails = True
        else:
            self._fails = False
