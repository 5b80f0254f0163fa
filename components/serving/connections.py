"""Configures uvicorn, the connection limit and the allowed Host headers."""

from __future__ import annotations

import ipaddress
import resource
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn

from switchyard.components.compat.bounded_http import ConnectionLimits, bounded_http
from switchyard.components.errors import UserError
from switchyard.components.serving.gate import AllowedHosts

_GRACE_SECONDS = 30
_OTHER_FILES = 256


def uvicorn_config(app: Any, limits: ConnectionLimits, tls: tuple[Path, Path] | None) -> uvicorn.Config:
    """Returns uvicorn's configuration; `tls` holds the files of the certificate chain and the key."""
    return uvicorn.Config(
        app,
        http=bounded_http(limits),
        ws="none",  # WebSockets would bypass `RequestMiddleware`
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        backlog=2048,
        ssl_certfile=str(tls[0]) if tls else None,
        ssl_keyfile=str(tls[1]) if tls else None,
    )


def allow_connections(wanted: int | None) -> int:
    """Returns the connection limit and raises this process's open-file limit to match.

    Args:
        wanted: number of connections; None takes the default, or fewer if the system allows fewer.

    Raises:
        UserError: the system's hard limit on open files is lower than `wanted` needs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = sys.maxsize if hard == resource.RLIM_INFINITY else max(1, hard - _OTHER_FILES)
    if wanted is not None and wanted > most:
        raise UserError(
            f"--max-connections: {wanted} need {wanted + _OTHER_FILES} open files, this system allows {hard} (ulimit -Hn). "
            f"Use at most {most}, or raise the limit."
        )
    connections = wanted or min(ConnectionLimits.connections, most)
    needed = connections + _OTHER_FILES
    if soft not in (resource.RLIM_INFINITY, hard) and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard))
    return connections


def allowed_hosts(names: Sequence[str], listening: socket.socket) -> AllowedHosts | None:
    """Returns the allowed hosts; None allows any host: for `*`, and for a non-loopback address without names."""
    loopback = ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback
    if "*" in names or not (loopback or names):
        return None
    return AllowedHosts(names, addresses=not loopback)
