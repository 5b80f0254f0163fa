"""Serves a model over HTTP and gRPC."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from switchyard.components.bundle.source import ModelRef, OpenedModel
from switchyard.components.errors import ArgumentError, UserError
from switchyard.components.import_order import import_tensorflow_without_keras, import_torch_first
from switchyard.components.process.tokens import read_token, token_in
from switchyard.components.process.variables import SERVE_TOKEN
from switchyard.components.serving.served_model import Limits
from switchyard.components.serving.server import ServeOptions, bind
from switchyard.components.serving.server import serve as run_server
from switchyard.components.text.redaction import mask
from switchyard.components.tracking.references import name_and_selector
from switchyard.pipelines.api.model_argument import model_ref, open_model
from switchyard.pipelines.api.number_argument import Range, number
from switchyard.pipelines.api.texts_argument import as_texts
from switchyard.pipelines.terminal.output import quiet

_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[?[0-9A-Fa-f:.]+\]?")


_RANGES: Mapping[str, Range] = {
    "port": Range(0, 65535, whole=True),
    "grpc_port": Range(0, 65535, whole=True),
    "poll": Range(0.1),
    "max_body": Range(1, 1024, whole=True),
    "max_rows": Range(1, whole=True),
    "batch_rows": Range(1, whole=True),
    "queue": Range(1, whole=True),
    "timeout": Range(0.1),
    "drain": Range(0),
    "max_connections": Range(1, whole=True),
    "idle_timeout": Range(1, whole=True),
    "canary": Range(0, 100, above=True, below=True),
    "sample": Range(0, 100, above=True),
}


def serve(
    model: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    grpc_port: int | None = None,
    name: str | None = None,
    poll: float = 10.0,
    canary: float | None = None,
    canary_alias: str = "challenger",
    max_body: int = 16,
    max_rows: int = 10_000,
    batch_rows: int = 1024,
    queue: int = 256,
    timeout: float = 30.0,
    drain: float = 0.0,
    token_file: str | os.PathLike[str] | None = None,
    allowed_hosts: Sequence[str] = (),
    max_connections: int | None = None,
    idle_timeout: int = 5,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    access_log: str | os.PathLike[str] | None = None,
    request_log: str | os.PathLike[str] | None = None,
    sample: float = 10.0,
    redact: Sequence[str] = (),
    digest: str | None = None,
    trust: bool = False,
    verify: str | os.PathLike[str] | None = None,
    tracking_uri: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> None:
    """Serves a model until SIGINT or SIGTERM: Open Inference Protocol v2 over HTTP and gRPC, and MLflow's /invocations.

    Requires the main thread of the process and no running event loop; for a notebook, start `switchyard serve` in a terminal.

    Args:
        model: see `load_model`; an alias is polled: a promotion swaps the model.
        host: address to listen on; 0.0.0.0 accepts connections from any host.
        port: port to listen on; 0 selects a free one.
        grpc_port: port of the Open Inference Protocol's gRPC service, on the same host; 0 selects a free one. Default: no gRPC.
        name: the model's name in URLs; default: its name in the registry.
        poll: seconds between registry polls.
        canary: percentage of requests that the challenger answers, more than 0 and below 100; default: no canary.
        canary_alias: alias of the canary's version.
        max_body: largest request body, in MiB.
        max_rows: largest number of rows in a request.
        batch_rows: largest batch, in rows.
        queue: longest queue of requests; further ones get 503.
        timeout: timeout of a request, in seconds.
        drain: seconds to report not-ready before shutdown.
        token_file: file with the token that clients must send; default: SWITCHYARD_SERVE_TOKEN, then none.
        allowed_hosts: host names that clients may use; `*` accepts any. Default: on loopback its own names, else any.
        max_connections: open connections; further ones get 503. Default: 1024, or fewer if the system limits open files.
        idle_timeout: seconds until an unused connection is closed.
        tls_cert: certificate chain, PEM.
        tls_key: key of the certificate, PEM.
        access_log: file, or `-` for standard output, with one JSON object per request; default: none.
        request_log: folder for a sample of requests and answers, Parquet; default: none.
        sample: percentage of requests to log, more than 0.
        redact: columns that are never logged; each must be one of the model's.
        digest: see `load_model`.
        trust: see `load_model`.
        verify: see `load_model`; every version that is swapped in is verified.
        tracking_uri: see `load_model`.
        workspace: see `load_model`.
        progress: report on standard error when the model is loaded or swapped.

    Raises:
        UserError: the model does not exist, or an argument is invalid.
        StageError: the model cannot be served.
    """
    given = locals()
    numbers = {name: number(name, given[name], allowed) for name, allowed in _RANGES.items() if given[name] is not None}
    if digest is not None and name_and_selector(os.fspath(model)):
        raise ArgumentError("digest", "applies to a folder or URI; a registered version has a digest of its own. Remove it.")
    _check_place()
    key = Path(tls_key) if tls_key is not None else None
    settings = ServeOptions(
        name=name or "",
        limits=Limits(
            body=numbers["max_body"] << 20,
            rows=numbers["max_rows"],
            batch_rows=numbers["batch_rows"],
            waiting=numbers["queue"],
            seconds=numbers["timeout"],
        ),
        poll_seconds=numbers["poll"],
        canary_alias=canary_alias if canary is not None else None,
        canary_share=numbers.get("canary", 0) / 100,
        token=_token(Path(token_file) if token_file is not None else None),
        tls=_tls(Path(tls_cert) if tls_cert is not None else None, key),
        access_log=os.fspath(access_log) if access_log is not None else None,
        request_log=Path(request_log) if request_log is not None else None,
        request_share=numbers["sample"] / 100,
        redacted=as_texts(redact),
        drain_seconds=numbers["drain"],
        allowed_hosts=_allowed_hosts(as_texts(allowed_hosts)),
        max_connections=numbers.get("max_connections"),
        idle_seconds=numbers["idle_timeout"],
        grpc=(host, numbers["grpc_port"]) if grpc_port is not None else None,
    )
    with ExitStack() as files:
        source: ModelRef | OpenedModel | None = model_ref(model, tracking_uri, workspace, trust=trust, verify=verify)
        if source is None:
            opening = open_model(model, tracking_uri, workspace, trust=trust, digest=digest, verify=verify)
            source = files.enter_context(opening)
        if canary is not None and not isinstance(source, ModelRef):
            raise ArgumentError("canary", "needs a registered model, for example breast_cancer@champion.")
        settings = replace(settings, name=settings.name or source.name)
        _serve(source, settings, (host, numbers["port"]), _say if progress else _ignore)


def _check_place() -> None:
    """Checks the thread: Uvicorn handles signals and runs an event loop of its own."""
    if threading.current_thread() is not threading.main_thread():
        raise UserError("serve: must run in the main thread, which receives the signals; start a process for it.")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UserError("serve: an event loop runs in this thread, as in a notebook; run `switchyard serve` in a terminal instead.")


def _serve(source: ModelRef | OpenedModel, settings: ServeOptions, address: tuple[str, int], say: Callable[[str], None]) -> None:
    listening = bind(*address)
    say(f"loading {settings.name}")
    with quiet():
        # Hides TensorFlow's messages on devices from the server's log.
        import_torch_first()
        import_tensorflow_without_keras()
        import tensorflow as tf

        tf.constant(0)
    run_server(source, listening, settings, metadata.version("switchyard"), say)


def _say(line: str) -> None:
    sys.stderr.write(f"{mask(line)}\n")
    sys.stderr.flush()


def _ignore(line: str) -> None:
    """Drops a message."""


def _token(file: Path | None) -> str | None:
    if file is not None:
        return read_token(file, "--token-file")
    given = os.environ.get(SERVE_TOKEN)
    # An empty variable is more likely a lost token than a request for open access.
    return None if given is None else token_in(given, SERVE_TOKEN)


def _allowed_hosts(given: Sequence[str]) -> tuple[str, ...]:
    names = [name.strip() for value in given for name in value.split(",")]
    for name in names:
        if name != "*" and not _HOST.fullmatch(name):
            raise UserError(
                f"--allowed-hosts: {name!r} is not a host's name. Give it without scheme, port and path (models.example.org), "
                "several separated by commas or by repeating the option; * takes any."
            )
    return tuple(names)


def _tls(cert: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if (cert is None) != (key is None):
        raise UserError("--tls-cert and --tls-key belong together: give both.")
    if cert is None or key is None:
        return None
    for option, file in (("--tls-cert", cert), ("--tls-key", key)):
        if not os.access(file, os.R_OK):
            raise UserError(f"{option}: cannot read {file}.")
    return cert, key
