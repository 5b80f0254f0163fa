"""How a server listens: its HTTP, how many connections may be open, and by which names it is called."""

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
    """Returns how an application is served; `tls` are the files of the certificate chain and the key."""
    return uvicorn.Config(
        app,
        http=bounded_http(limits),
        ws="none",  # it would pass by the gate
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
    """Returns how many connections may be open, and has this process open so many files.

    Args:
        wanted: so many; None: what is usual, or what the system allows.

    Raises:
        UserError: the system does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = sys.maxsize if hard == resource.RLIM_INFINITY else max(1, hard - _OTHER_FILES)
    if wanted is not None and wanted > most:
        raise UserError(
            f"--max-connections: {wanted} need {wanted + _OTHER_FILES} open files, this system allows {hard} (ulimit -Hn). "
            f"Take at most {most}, or have the limit raised."
        )
    connections = wanted or min(ConnectionLimits.connections, most)
    needed = connections + _OTHER_FILES
    if soft not in (resource.RLIM_INFINITY, hard) and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard))
    return connections


def allowed_hosts(names: Sequence[str], listening: socket.socket) -> AllowedHosts | None:
    """Returns whose requests are taken; None: anybody's, as on an address that others reach and no names are given for."""
    loopback = ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback
    if "*" in names or not (loopback or names):
        return None
    return AllowedHosts(names, addresses=not loopback)
