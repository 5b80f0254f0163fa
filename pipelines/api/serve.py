"""`switchyard serve`: from the command's options to a server."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from switchyard.components.bundle.source import ModelRef, OpenedModel, name_and_selector
from switchyard.components.errors import UserError
from switchyard.components.import_order import import_tensorflow_without_keras, import_torch_first
from switchyard.components.process.tokens import read_token, token_in
from switchyard.components.process.variables import SERVE_TOKEN
from switchyard.components.serving.served_model import Limits
from switchyard.components.serving.server import ServeOptions, bind
from switchyard.components.serving.server import serve as run_server
from switchyard.pipelines.api.model_argument import model_ref, open_model
from switchyard.pipelines.terminal.output import quiet

_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[?[0-9A-Fa-f:.]+\]?")


def serve_model(model: str, tracking_uri: str | None, workspace: Path | None, options: Mapping[str, Any]) -> None:
    """Serves until SIGTERM.

    Raises:
        UserError: there is no such model, or an option does not fit.
        StageError: the model cannot be served.
    """
    digest = options["digest"]
    if digest is not None and name_and_selector(model):
        raise UserError("--digest: belongs to a folder or URI; a version of the registry has its own.")
    trust = options["trust"]
    with ExitStack() as files:
        source: ModelRef | OpenedModel | None = model_ref(model, tracking_uri, workspace, trust=trust)
        if source is None:
            source = files.enter_context(open_model(model, tracking_uri, workspace, trust=trust, digest=digest))
        _serve(source, options)


def _serve(source: ModelRef | OpenedModel, options: Mapping[str, Any]) -> None:
    canary = options["canary"]
    if canary and not isinstance(source, ModelRef):
        raise UserError("--canary: needs a model of the registry, for example breast_cancer@champion.")
    settings = ServeOptions(
        name=options["name"] or source.name,
        limits=Limits(
            body=options["max_body"] << 20,
            rows=options["max_rows"],
            batch_rows=options["batch_rows"],
            waiting=options["queue"],
            seconds=options["timeout"],
        ),
        poll_seconds=options["poll"],
        canary_alias=options["canary_alias"] if canary else None,
        canary_share=(canary or 0) / 100,
        token=_token(options["token_file"]),
        tls=_tls(options["tls_cert"], options["tls_key"]),
        access_log=None if options["access_log"] == "off" else options["access_log"],
        request_log=options["request_log"],
        request_share=options["sample"] / 100,
        redacted=options["redact"],
        drain_seconds=options["drain"],
        allowed_hosts=_allowed_hosts(options["allowed_hosts"]),
        max_connections=options["max_connections"],
        idle_seconds=options["idle_timeout"],
    )
    listening = bind(options["host"], options["port"])
    _say(f"loading {settings.name}")
    with quiet():
        # What TensorFlow says of devices when it starts is not for whoever reads a server's log.
        import_torch_first()
        import_tensorflow_without_keras()
        import tensorflow as tf

        tf.constant(0)
    run_server(source, listening, settings, metadata.version("switchyard"), _say)


def _say(line: str) -> None:
    click.echo(line, err=True)
    sys.stderr.flush()


def _token(file: Path | None) -> str | None:
    if file is not None:
        return read_token(file, "--token-file")
    given = os.environ.get(SERVE_TOKEN)
    # A variable that is there and empty is a token that got lost, and no wish to let everybody in.
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
